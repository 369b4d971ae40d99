// envoy_test.go: Envoy's example decoded strictly, every extension in it by its own type, and each held to its own rules.
package schemas

import (
	"fmt"
	"os"
	"slices"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"sigs.k8s.io/yaml"
)

func TestEnvoy(t *testing.T) {
	text, err := os.ReadFile("../../packaging/envoy/envoy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		t.Fatal(err)
	}
	b := new(bootstrapv3.Bootstrap)
	if err := protojson.Unmarshal(asJSON, b); err != nil { // an unknown field, or an extension of a type that is not linked, is an error
		t.Fatal(err)
	}
	if n := validate(t, b); n < 5 {
		t.Errorf("%d extensions were looked into", n)
	}

	clusters := map[string][]string{} // health paths by cluster
	for _, c := range b.StaticResources.Clusters {
		for _, h := range c.HealthChecks {
			clusters[c.Name] = append(clusters[c.Name], h.GetHttpHealthCheck().GetPath())
		}
		if len(clusters[c.Name]) == 0 {
			t.Errorf("cluster %s has no health check", c.Name)
		}
		o := new(httpv3.HttpProtocolOptions)
		if err := c.TypedExtensionProtocolOptions["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"].UnmarshalTo(o); err != nil {
			t.Errorf("cluster %s: %v", c.Name, err)
		}
	}
	routed := 0
	for _, l := range b.StaticResources.Listeners {
		for _, chain := range l.FilterChains {
			for _, f := range chain.Filters {
				m := new(hcmv3.HttpConnectionManager)
				if err := f.GetTypedConfig().UnmarshalTo(m); err != nil {
					t.Fatal(err)
				}
				for _, host := range m.GetRouteConfig().VirtualHosts {
					for _, r := range host.Routes {
						routed++
						if _, ok := clusters[r.GetRoute().GetCluster()]; !ok {
							t.Errorf("a route goes to %q, which is not there", r.GetRoute().GetCluster())
						}
					}
				}
			}
		}
	}
	if want := []string{"/readyz"}; routed < 2 || !slices.Equal(clusters["inferd_grpc"], want) || !slices.Equal(clusters["inferd_http"], want) {
		t.Errorf("%d routes, health paths %v", routed, clusters)
	}
}

// validate applies the rules that come with the types to m and to every message packed into it, and counts these.
func validate(t *testing.T, m proto.Message) (packed int) {
	t.Helper()
	if v, ok := m.(interface{ ValidateAll() error }); ok {
		if err := v.ValidateAll(); err != nil {
			t.Errorf("%T: %v", m, err)
		}
	}
	var walk func(protoreflect.Message)
	visit := func(v protoreflect.Message) {
		if a, ok := v.Interface().(*anypb.Any); ok {
			packed++
			inner, err := a.UnmarshalNew()
			if err != nil {
				t.Error(fmt.Errorf("%s: %w", a.GetTypeUrl(), err))
				return
			}
			packed += validate(t, inner)
			return
		}
		walk(v)
	}
	walk = func(m protoreflect.Message) {
		m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			switch {
			case f.IsMap() && f.MapValue().Message() != nil:
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool { visit(v.Message()); return true })
			case f.IsList() && f.Message() != nil:
				for i := range v.List().Len() {
					visit(v.List().Get(i).Message())
				}
			case !f.IsMap() && !f.IsList() && f.Message() != nil:
				visit(v.Message())
			}
			return true
		})
	}
	walk(m.ProtoReflect())
	return packed
}
