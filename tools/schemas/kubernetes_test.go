// kubernetes_test.go: every manifest decoded strictly, and what must hold between them.
package schemas

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"
)

// kinds are the types that a manifest may be of.
var kinds = map[string]func() any{
	"v1/ConfigMap":                       func() any { return new(corev1.ConfigMap) },
	"v1/Service":                         func() any { return new(corev1.Service) },
	"apps/v1/Deployment":                 func() any { return new(appsv1.Deployment) },
	"policy/v1/PodDisruptionBudget":      func() any { return new(policyv1.PodDisruptionBudget) },
	"networking.k8s.io/v1/NetworkPolicy": func() any { return new(networkingv1.NetworkPolicy) },
}

var separator = regexp.MustCompile(`(?m)^---\n`)

// decode is each document of a file as the type that its kind says; a field that the type does not have fails.
func decode(t *testing.T, file string) (objects []any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i, doc := range separator.Split(string(text), -1) {
		var kind struct{ APIVersion, Kind string }
		if err := yaml.Unmarshal([]byte(doc), &kind); err != nil {
			t.Fatalf("%s, document %d: %v", file, i, err)
		}
		make, ok := kinds[kind.APIVersion+"/"+kind.Kind]
		if !ok {
			t.Fatalf("%s, document %d: %s %s is not looked at by this test", file, i, kind.APIVersion, kind.Kind)
		}
		o := make()
		if err := yaml.UnmarshalStrict([]byte(doc), o); err != nil {
			t.Errorf("%s, document %d: %v", file, i, err)
		}
		objects = append(objects, o)
	}
	return objects
}

// one is the object of a type and name.
func one[T any](t *testing.T, objects []any, named func(*T) string, name string) *T {
	t.Helper()
	for _, o := range objects {
		if v, ok := o.(*T); ok && named(v) == name {
			return v
		}
	}
	t.Fatalf("there is no %T %q", *new(T), name)
	return nil
}

func TestManifests(t *testing.T) {
	files, err := filepath.Glob("../../packaging/kubernetes/*.yaml")
	if err != nil || len(files) != 2 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			for _, o := range decode(t, file) {
				if d, ok := o.(*appsv1.Deployment); ok {
					deployment(t, d)
				}
			}
		})
	}
}

// deployment checks what the API server would refuse, or would take and never bring up.
func deployment(t *testing.T, d *appsv1.Deployment) {
	t.Helper()
	labels := d.Spec.Template.Labels
	for k, v := range d.Spec.Selector.MatchLabels {
		if labels[k] != v {
			t.Errorf("the selector wants %s=%s, the pods have %q", k, v, labels[k])
		}
	}
	for _, c := range d.Spec.Template.Spec.Containers {
		var ports []string
		for _, p := range c.Ports {
			ports = append(ports, p.Name, fmt.Sprint(p.ContainerPort))
		}
		for what, p := range map[string]*corev1.Probe{"startup": c.StartupProbe, "liveness": c.LivenessProbe, "readiness": c.ReadinessProbe} {
			if p != nil && !slices.Contains(ports, p.HTTPGet.Port.String()) {
				t.Errorf("the %s probe asks port %s, the container has %v", what, &p.HTTPGet.Port, ports)
			}
		}
		var volumes []string
		for _, v := range d.Spec.Template.Spec.Volumes {
			volumes = append(volumes, v.Name)
		}
		for _, m := range c.VolumeMounts {
			if !slices.Contains(volumes, m.Name) {
				t.Errorf("a volume %q is mounted and not there", m.Name)
			}
		}
		if c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() {
			t.Error("requests and limits are not whole")
		}
	}
}

func TestReplicasOfInferd(t *testing.T) {
	objects := decode(t, "../../packaging/kubernetes/inferd.yaml")
	d := one(t, objects, func(d *appsv1.Deployment) string { return d.Name }, "inferd")
	pod, c := d.Spec.Template.Spec, d.Spec.Template.Spec.Containers[0]
	if *d.Spec.Replicas != 3 {
		t.Errorf("%d replicas", *d.Spec.Replicas)
	}
	if pod.SecurityContext == nil || !*pod.SecurityContext.RunAsNonRoot || !*c.SecurityContext.ReadOnlyRootFilesystem || *c.SecurityContext.AllowPrivilegeEscalation ||
		!slices.Equal(c.SecurityContext.Capabilities.Drop, []corev1.Capability{"ALL"}) || pod.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Error("the container may do more than it must")
	}
	if c.StartupProbe == nil || c.LivenessProbe == nil || c.ReadinessProbe == nil || c.Lifecycle == nil || c.Lifecycle.PreStop == nil {
		t.Fatal("a probe or the preStop hook is missing")
	}
	for _, service := range []string{"inferd", "inferd-pods"} {
		s := one(t, objects, func(s *corev1.Service) string { return s.Name }, service)
		for _, p := range s.Spec.Ports {
			if !slices.ContainsFunc(c.Ports, func(cp corev1.ContainerPort) bool { return cp.Name == p.TargetPort.String() }) {
				t.Errorf("service %s goes to a port %s that the container has not", service, &p.TargetPort)
			}
		}
		for k, v := range s.Spec.Selector {
			if d.Spec.Template.Labels[k] != v {
				t.Errorf("service %s chooses %s=%s", service, k, v)
			}
		}
	}
	b := one(t, objects, func(b *policyv1.PodDisruptionBudget) string { return b.Name }, "inferd")
	if b.Spec.MinAvailable.IntValue() >= int(*d.Spec.Replicas) {
		t.Error("the budget lets no node be emptied")
	}
	for _, what := range []map[string]string{b.Spec.Selector.MatchLabels, one(t, objects, func(p *networkingv1.NetworkPolicy) string { return p.Name }, "inferd").Spec.PodSelector.MatchLabels} {
		for k, v := range what {
			if d.Spec.Template.Labels[k] != v {
				t.Errorf("%s=%s is no label of the pods", k, v)
			}
		}
	}
}

// TestOnlyTheImageIsAnother: the manifest without its image is TensorFlow Serving's, with nothing of inferd's in it.
func TestOnlyTheImageIsAnother(t *testing.T) {
	text, err := os.ReadFile("../../packaging/kubernetes/tensorflow-serving.yaml")
	if err != nil {
		t.Fatal(err)
	}
	comment := regexp.MustCompile(`(?m)^#.*\n`)
	rest := comment.ReplaceAll(text, nil)
	rest = bytes.Replace(rest, []byte("image: inferd:latest"), []byte("image: tensorflow/serving:2.19.1"), 1)
	if bytes.Contains(rest, []byte("inferd")) {
		t.Errorf("inferd is named beside the image:\n%s", rest)
	}
}
