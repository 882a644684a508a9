{{- /* What the schema cannot say. Every message says what to do. */ -}}
{{- define "claviger.checks" -}}
{{- if gt (int .Values.replicas) 1 -}}
{{- fail (printf "replicas: %d: the embedded store belongs to one process, so a second replica would wait for it forever; set 1" (int .Values.replicas)) -}}
{{- end -}}
{{- if not .Values.image.repository -}}
{{- fail "image.repository: no image is published; build one as the chart's README says, and name it here" -}}
{{- end -}}
{{- if not .Values.rootKey.existingSecret -}}
{{- fail "rootKey.existingSecret: run `claviger generate-key root.key` and `kubectl create secret generic claviger-root-key --from-file=root.key`, keep a copy elsewhere, and name the Secret here" -}}
{{- end -}}
{{- if not .Values.rootKey.keys -}}
{{- fail "rootKey.keys: name the keys of the Secret that hold root keys, newest first" -}}
{{- end -}}
{{- if eq (empty .Values.tls.existingSecret) (not .Values.tls.plaintext) -}}
{{- fail "tls: name a Secret with tls.crt and tls.key in tls.existingSecret, or set tls.plaintext where a mesh or a proxy encrypts the way; one of the two" -}}
{{- end -}}
{{- if and .Values.tls.clientCertificates (not .Values.tls.existingSecret) -}}
{{- fail "tls.clientCertificates: needs tls.existingSecret, with the clients' authorities as ca.crt" -}}
{{- end -}}
{{- $ours := dict "grpc" (list "listen" "tls") "http" (list "listen" "tls") "store" (list "directory") "sealing" (list "root_keys") -}}
{{- range $section, $keys := $ours -}}
{{- range $key := $keys -}}
{{- if hasKey (dig $section dict $.Values.config) $key -}}
{{- fail (printf "config.%s.%s: is set by the chart; remove it" $section $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- include "claviger.checkSecrets" (dict "kind" "providers" "secrets" .Values.clientSecrets.providers "tables" .Values.config.providers) -}}
{{- include "claviger.checkSecrets" (dict "kind" "signIn" "secrets" .Values.clientSecrets.signIn "tables" (include "claviger.signIns" . | fromYamlArray)) -}}
{{- end -}}

{{- /* The families of config.identity that have sign_in, as their ids and that table. */ -}}
{{- define "claviger.signIns" -}}
{{- $tables := list -}}
{{- range .Values.config.identity -}}
{{- if .sign_in -}}
{{- $tables = append $tables (merge (dict "id" .id) .sign_in) -}}
{{- end -}}
{{- end -}}
{{- toYaml $tables -}}
{{- end -}}

{{- define "claviger.checkSecrets" -}}
{{- $ids := list -}}
{{- range .tables -}}
{{- $ids = append $ids .id -}}
{{- if hasKey . "client_secret_file" -}}
{{- fail (printf "config: client_secret_file of %q: is set by the chart; name the Secret in clientSecrets.%s" .id $.kind) -}}
{{- end -}}
{{- end -}}
{{- range $id, $_ := .secrets -}}
{{- if not (has $id $ids) -}}
{{- fail (printf "clientSecrets.%s.%s: nothing in the configuration has this id; it has: %s" $.kind $id (join ", " $ids)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
