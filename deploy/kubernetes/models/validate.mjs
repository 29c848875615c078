// Holds custom resources against their schemas: a JSON array of objects on standard input.

import { HTTPRoute } from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1/HTTPRoute";
import { ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor";

const kinds = { HTTPRoute, ServiceMonitor };
let text = "";
for await (const chunk of process.stdin) text += chunk;
for (const resource of JSON.parse(text)) {
  const Kind = kinds[resource.kind];
  if (!Kind) throw new Error(`no schema for ${resource.kind}`);
  if (!Kind.is(resource)) throw new Error(`${resource.apiVersion} is not that of ${resource.kind}`);
  new Kind(resource).validate();
  console.log(`${resource.kind}/${resource.metadata.name} is valid`);
}
