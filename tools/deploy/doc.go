// Package deploy tries what packaging/ gives to people who run inferd elsewhere than from its package: container images, Kubernetes' manifests,
// HAProxy, Prometheus, Grafana and the example clients, each with the real inferd. There is nothing in it but tests. What a machine does
// not have (runc, umoci, buildah, haproxy, promtool, root) is skipped, and says so.
package deploy
