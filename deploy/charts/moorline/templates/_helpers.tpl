{{/* The chart's name, or another. */}}
{{- define "moorline.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* What the names of all objects begin with: the release, and the chart unless the release is called so already. Room is left for the suffixes. */}}
{{- define "moorline.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "moorline.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* By which all pods of the release are selected. */}}
{{- define "moorline.selector" -}}
app.kubernetes.io/name: {{ include "moorline.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Labels of every object. */}}
{{- define "moorline.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "moorline.selector" . }}
app.kubernetes.io/version: {{ default .Chart.AppVersion .Values.image.tag | toString | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: moorline
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "moorline.image" -}}
{{- $image := .Values.image -}}
{{- if not $image.repository -}}
{{- fail "image.repository is required: the repository that holds Moorline's image, as registry.example/tools/moorline" -}}
{{- end -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default .Chart.AppVersion $image.tag }}
{{- end -}}
{{- end -}}

{{/* The Deployments, as JSON: a list under "all", each with its name, component, role, service account and values of pods. */}}
{{- define "moorline.components" -}}
{{- $name := include "moorline.fullname" . -}}
{{- $account := ternary (default $name .Values.serviceAccount.name) (default "default" .Values.serviceAccount.name) .Values.serviceAccount.create -}}
{{- $front := .Values.kubernetes.enabled -}}
{{- $reviews := eq .Values.auth.mode "kubernetes" -}}
{{- $all := list -}}
{{- if eq .Values.roles "apart" -}}
{{- range $component := list "api" "controller" -}}
{{- $pods := mergeOverwrite (deepCopy $.Values.pods) (index $.Values $component) -}}
{{- $own := ternary (printf "%s-%s" $account $component) $account $.Values.serviceAccount.create -}}
{{- $api := eq $component "api" -}}
{{- $all = append $all (dict "name" (printf "%s-%s" $name $component) "component" $component "role" $component "account" $own "pods" $pods "front" (and $front (not $api)) "reviews" (and $reviews $api)) -}}
{{- end -}}
{{- else -}}
{{- $all = append $all (dict "name" $name "component" "server" "role" "all" "account" $account "pods" .Values.pods "front" $front "reviews" $reviews) -}}
{{- end -}}
{{- dict "all" $all | toJson -}}
{{- end -}}

{{/* http or https. */}}
{{- define "moorline.scheme" -}}
{{- if include "moorline.certificate" . }}https{{ else }}http{{ end -}}
{{- end -}}

{{/* The Secret with the serving certificate; empty when there is none. */}}
{{- define "moorline.certificate" -}}
{{- if .Values.tls.existingSecret -}}
{{- .Values.tls.existingSecret -}}
{{- else if .Values.tls.certManager.enabled -}}
{{- include "moorline.fullname" . }}-tls
{{- end -}}
{{- end -}}

{{/* The Secret with the database's URL. */}}
{{- define "moorline.databaseSecret" -}}
{{- if not .Values.database.existingSecret.name -}}
{{- fail "database.existingSecret.name is required: a Secret of this namespace whose key database.existingSecret.key holds postgres://user:password@host:port/name" -}}
{{- end -}}
{{- .Values.database.existingSecret.name -}}
{{- end -}}

{{/* How the database is verified: environment of every container that speaks to it. */}}
{{- define "moorline.databaseEnv" -}}
{{- with .Values.database.tls.mode }}
- name: PGSSLMODE
  value: {{ . }}
{{- end }}
{{- if .Values.database.tls.caSecret.name }}
- name: PGSSLROOTCERT
  value: /etc/moorline/database-ca/ca.crt
{{- end }}
{{- end -}}

{{- define "moorline.databaseMounts" -}}
- name: database
  mountPath: /etc/moorline/database
  readOnly: true
{{- if .Values.database.tls.caSecret.name }}
- name: database-ca
  mountPath: /etc/moorline/database-ca
  readOnly: true
{{- end }}
{{- end -}}

{{- define "moorline.databaseVolumes" -}}
- name: database
  secret:
    secretName: {{ include "moorline.databaseSecret" . }}
    items:
      - key: {{ .Values.database.existingSecret.key }}
        path: url
{{- with .Values.database.tls.caSecret }}
{{- if .name }}
- name: database-ca
  secret:
    secretName: {{ .name }}
    items:
      - key: {{ .key }}
        path: ca.crt
{{- end }}
{{- end }}
{{- end -}}

{{/* What `moorline migrate` needs of a container, for the Job and for initContainers. */}}
{{- define "moorline.migrateContainer" -}}
name: migrate
image: {{ include "moorline.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args:
  - migrate
  - --database-url-file=/etc/moorline/database/url
{{- with include "moorline.databaseEnv" . | trim }}
env:
  {{- . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
resources:
  {{- toYaml .Values.migrations.resources | nindent 2 }}
volumeMounts:
  {{- include "moorline.databaseMounts" . | nindent 2 }}
{{- end -}}

{{/* Whether to render an object of a definition that a cluster may lack: a dict of root, mode, api (group/version/Kind) and value (its name). */}}
{{- define "moorline.renders" -}}
{{- $has := .root.Capabilities.APIVersions.Has .api -}}
{{- if or $has (eq .mode "alwaysRender") -}}
true
{{- else if eq .mode "failIfMissing" -}}
{{- fail (printf "%s is failIfMissing, and the cluster does not serve %s: install its definitions first, or set skipIfMissing; `helm template` asks no cluster, set alwaysRender or --api-versions there" .value .api) -}}
{{- end -}}
{{- end -}}

{{/* The environment of a server: a dict of root and pods. */}}
{{- define "moorline.env" -}}
{{- include "moorline.databaseEnv" .root }}
{{- with .root.Values.log.level }}
- name: RUST_LOG
  value: {{ . | quote }}
{{- end }}
{{- with .root.Values.otlp.endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- with .pods.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}
