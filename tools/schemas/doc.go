// Package schemas holds the examples of packaging/ to the types of those who read them: Kubernetes' manifests to k8s.io/api, Envoy's
// configuration to go-control-plane. It is a module of its own so that the product does not depend on them. There is nothing in it but tests.
package schemas
