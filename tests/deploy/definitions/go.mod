// Whose definitions the tests of deploy/ install in a real kube-apiserver, so that what the chart makes of their kinds is judged by
// them: pinned, and read from the modules' folders. Nothing of them is built.
//
// To move to another version: change it here, and run `go mod download` in this folder. Not `go mod tidy`: nothing imports them.
module moorline.dev/deploy/definitions

go 1.26.0

require (
	github.com/cert-manager/cert-manager v1.21.2
	github.com/prometheus-operator/prometheus-operator v0.85.0
	sigs.k8s.io/gateway-api v1.6.0
)
