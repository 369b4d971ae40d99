// jobs_test.go: the generated file is that of jobs.proto.
package jobspb

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"testing"
)

// TestGeneratedFileIsCurrent compares every message's fields, by name, number and type, and every method, with the text of jobs.proto.
func TestGeneratedFileIsCurrent(t *testing.T) {
	text, err := os.ReadFile("jobs.proto")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	message := ""
	line := regexp.MustCompile(`(?m)^(?:message (\w+) \{|\s+(\w+) (\w+) = (\d+);|\s+rpc (\w+)\((\w+)\) returns \((\w+)\);)`)
	for _, m := range line.FindAllStringSubmatch(string(text), -1) {
		switch {
		case m[1] != "":
			message = m[1]
		case m[5] != "":
			want = append(want, fmt.Sprintf("rpc %s %s %s", m[5], m[6], m[7]))
		default:
			want = append(want, fmt.Sprintf("%s.%s %s %s", message, m[3], m[2], m[4]))
		}
	}
	var got []string
	file := File_appliance_api_rpc_jobspb_jobs_proto
	for i := range file.Messages().Len() {
		m := file.Messages().Get(i)
		for j := range m.Fields().Len() {
			f := m.Fields().Get(j)
			got = append(got, fmt.Sprintf("%s.%s %v %d", m.Name(), f.Name(), f.Kind(), f.Number()))
		}
	}
	for i := range file.Services().Len() {
		methods := file.Services().Get(i).Methods()
		for j := range methods.Len() {
			m := methods.Get(j)
			got = append(got, fmt.Sprintf("rpc %s %s %s", m.Name(), m.Input().Name(), m.Output().Name()))
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) || len(want) < 30 {
		t.Errorf("jobs.pb.go has\n%q\nand jobs.proto\n%q\nits first lines say how to make the one of the other", got, want)
	}
}
