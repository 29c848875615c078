#!/usr/bin/env python3
"""Holds Kubernetes resources to more than their schemas: what they must be to one another and to the gateway.

    validate.py CLOAKROOM FILE…     CLOAKROOM is the program, which checks the configuration of each FILE

Prints the custom resources of all files as JSON, for models/validate.mjs.
"""

import json
import os
import re
import subprocess
import sys
import tempfile

import yaml

NOTICE = 5  # seconds that the listener stays open at a shutdown, a sixth of the grace at most (docs/life-of-a-shutdown.md)
MORE = 10  # seconds beyond the grace, of which the notice is a part; a collector may take up to five at the end
CUSTOM = {"HTTPRoute", "ServiceMonitor"}
FOREIGN = {"Kustomization"}


def main(program, files):
    custom = []
    for file in files:
        with open(file) as stream:
            resources = [resource for resource in yaml.safe_load_all(stream) if resource]
        custom += [resource for resource in resources if resource["kind"] in CUSTOM]
        by_kind = {}
        for resource in resources:
            by_kind.setdefault(resource["kind"], []).append(resource)
        try:
            for deployment in by_kind.get("Deployment", []):
                check(program, deployment, by_kind)
        except AssertionError as fault:
            sys.exit(f"{file}: {fault}")
    print(json.dumps(custom))


def check(program, deployment, by_kind):
    template = deployment["spec"]["template"]
    pod, labels = template["spec"], template["metadata"]["labels"]
    (container,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    restricted(pod, container)

    def chosen(selector):
        return selector.items() <= labels.items()

    assert chosen(deployment["spec"]["selector"]["matchLabels"])
    for service in by_kind["Service"]:
        assert chosen(service["spec"]["selector"]), service["metadata"]["name"]
        assert all(port["targetPort"] in ports for port in service["spec"]["ports"]), service["metadata"]["name"]
    for kind, path in {"PodDisruptionBudget": ["selector"], "NetworkPolicy": ["podSelector"]}.items():
        for resource in by_kind.get(kind, []):
            assert chosen(resource["spec"][path[0]]["matchLabels"]), kind
    for rule in [rule for policy in by_kind.get("NetworkPolicy", []) for rule in policy["spec"]["ingress"]]:
        assert all(port["port"] in ports for port in rule["ports"]), "the policy names a port that is not there"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == "admin", probe
    accounts = [account["metadata"]["name"] for account in by_kind["ServiceAccount"]]
    assert pod["serviceAccountName"] in accounts and pod["automountServiceAccountToken"] is False

    (config,) = by_kind["ConfigMap"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["config"]["configMap"]["name"] == config["metadata"]["name"]
    text = config["data"]["cloakroom.yaml"]
    server = yaml.safe_load(text)["server"]
    admin = yaml.safe_load(text)["admin"]
    assert ports == {"http": port_of(server["listen"]), "admin": port_of(admin["listen"])}, ports
    grace = seconds(server.get("shutdown_grace", "30s"))
    assert pod["terminationGracePeriodSeconds"] >= grace + MORE, "a shutdown is cut off"
    assert container["readinessProbe"]["periodSeconds"] * 2 < min(NOTICE, grace / 6), "a drain is noticed too late"
    mode = volumes["secrets"]["projected"]["defaultMode"]
    assert mode == 0o440 and pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]
    secrets = {
        item["path"] for source in volumes["secrets"]["projected"]["sources"] for item in source["secret"]["items"]
    }
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts >= {"/etc/cloakroom", "/run/secrets/cloakroom"}
    named = set(re.findall(r"/run/secrets/cloakroom/([-.\w]+)", text))
    assert named == secrets, f"the configuration names {sorted(named)}, the pod has {sorted(secrets)}"
    accepted(program, text, named, mounts, {entry["name"]: entry["value"] for entry in container.get("env", [])})


def restricted(pod, container):
    """Pod Security Standards, "restricted"."""
    assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    context = container["securityContext"]
    assert context["allowPrivilegeEscalation"] is False and context["capabilities"] == {"drop": ["ALL"]}
    assert context["readOnlyRootFilesystem"] is True
    assert not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
    kinds = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
    assert all(set(volume) - {"name"} <= kinds for volume in pod["volumes"])


def accepted(program, text, secrets, mounts, environment):
    """The program takes the configuration, where the pod's files are there."""
    with tempfile.TemporaryDirectory() as root:
        os.makedirs(f"{root}/run/secrets/cloakroom")
        for name in secrets:
            key = subprocess.run([program, "keygen"], check=True, capture_output=True).stdout
            with open(f"{root}/run/secrets/cloakroom/{name}", "wb") as secret:
                os.chmod(secret.name, 0o440)
                secret.write(key)
        for mount in mounts - {"/etc/cloakroom", "/run/secrets/cloakroom"}:
            os.makedirs(root + mount)
            certificate(root + mount)
        for mount in mounts | {"/run/secrets/cloakroom"}:
            text = text.replace(f" {mount}", f" {root}{mount}")
        file = f"{root}/cloakroom.yaml"
        with open(file, "w") as stream:
            stream.write(text)
        outcome = subprocess.run([program, "check", "-c", file], capture_output=True, text=True, env=environment)
        assert outcome.returncode == 0, f"cloakroom check:\n{outcome.stdout}{outcome.stderr}"


def certificate(folder):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        + ["-subj", "/CN=shop.example.com", "-addext", "subjectAltName=DNS:shop.example.com"]
        + ["-keyout", f"{folder}/tls.key", "-out", f"{folder}/tls.crt"],
        check=True,
        capture_output=True,
    )


def port_of(address):
    return int(address.rsplit(":", 1)[1])


def seconds(duration):
    amount, unit = re.fullmatch(r"(\d+)(s|m)", duration).groups()
    return int(amount) * {"s": 1, "m": 60}[unit]


main(sys.argv[1], sys.argv[2:])
