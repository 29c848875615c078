{{- define "cloakroom.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "cloakroom.fullname" -}}
{{- $name := include "cloakroom.name" . }}
{{- $release := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- default $release .Values.fullnameOverride | trunc 57 | trimSuffix "-" }}
{{- end }}

{{- define "cloakroom.selector" -}}
app.kubernetes.io/name: {{ include "cloakroom.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "cloakroom.labels" -}}
{{ include "cloakroom.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* The port of an address such as 0.0.0.0:8080. */}}
{{- define "cloakroom.port" -}}
{{- regexFind "[0-9]+$" . }}
{{- end }}

{{/* server.shutdown_grace in seconds and ten more (the five of notice are part of it; a collector may take up to five at the end). */}}
{{- define "cloakroom.terminationGracePeriod" -}}
{{- $grace := default "30s" .Values.config.server.shutdown_grace }}
{{- $seconds := regexFind "^[0-9]+" $grace | int }}
{{- if hasSuffix "m" $grace }}{{ $seconds = mul 60 $seconds }}{{ end }}
{{- add $seconds 10 }}
{{- end }}
