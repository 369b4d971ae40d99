// counters.go: the values of single metrics, for HandleReloadConfigRequest's metric_names.
package appliance

import "strings"

// counters has the present values of the named metrics: of a counter or a gauge the sum over its labels, of a histogram how many were
// observed. A name is Prometheus's, or TensorFlow Serving's own with slashes. A metric that there is not, or not yet, is 0.
func (m *metrics) counters(names []string) []int64 {
	values := make([]int64, len(names))
	families, err := m.registry.Gather()
	if err != nil && len(families) == 0 {
		return values
	}
	for _, f := range families {
		var sum float64
		for _, one := range f.GetMetric() {
			sum += one.GetCounter().GetValue() + one.GetGauge().GetValue() + float64(one.GetHistogram().GetSampleCount())
		}
		for i, name := range names {
			if prometheusName(name) == f.GetName() {
				values[i] = int64(sum)
			}
		}
	}
	return values
}

// prometheusName is the name under which TensorFlow Serving shows its metric to Prometheus.
func prometheusName(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return ':'
	}, name)
}
