{{- define "duting.name" -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | replace "duting-duting" "duting" | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "duting.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "duting.selector" . }}
{{- end }}

{{- define "duting.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "duting.image" -}}
{{- $own := .own | default dict -}}
{{- printf "%s:%s" ($own.repository | default .root.Values.image.repository) ($own.tag | default .root.Values.image.tag | default .root.Chart.AppVersion) -}}
{{- end }}

{{- define "duting.secret" -}}
{{- required "existingSecret: name a Secret with kafka-url, redis-url, database-url, ingest-token and metrics-token" .Values.existingSecret -}}
{{- end }}

{{/* What every part is told: where the cluster is, and the settings of values.yaml. */}}
{{- define "duting.environment" -}}
{{- $secret := include "duting.secret" . -}}
{{- range $variable, $key := dict "DUTING_KAFKA_URL" "kafka-url" "DUTING_REDIS_URL" "redis-url" "DUTING_DATABASE_URL" "database-url" }}
- name: {{ $variable }}
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: {{ $key }}}}
{{- end }}
{{- range $name, $value := .Values.settings }}
- name: DUTING_{{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- if .Values.rulesConfigMap }}
- name: DUTING_RULES
  value: /rules
{{- end }}
{{- end }}

{{/* The pod around a part's containers. */}}
{{- define "duting.pod" -}}
{{- $part := index .root.Values .part -}}
serviceAccountName: {{ include "duting.name" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ $part.terminationGracePeriodSeconds }}
securityContext: {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "duting.selector" .root | nindent 8 }}
        app.kubernetes.io/component: {{ .part }}
{{- end }}

{{/* Probes of a worker: health and readiness on its own small port. */}}
{{- define "duting.workerProbes" -}}
startupProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 5
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: health}
  periodSeconds: 5
  timeoutSeconds: 5
{{- end }}
