// oip_test.go: the generated file is that of oip.proto, and its numbers are the published ones.
package oippb

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// described are the fields and methods of the generated file.
func described() (list []string) {
	var message func(m protoreflect.MessageDescriptor)
	message = func(m protoreflect.MessageDescriptor) {
		if m.IsMapEntry() {
			return
		}
		for i := range m.Fields().Len() {
			f := m.Fields().Get(i)
			repeated := ""
			if f.Cardinality() == protoreflect.Repeated {
				repeated = "repeated "
			}
			list = append(list, fmt.Sprintf("%s.%s %s%v %d", strings.TrimPrefix(string(m.FullName()), "inference."), f.Name(), repeated, f.Kind(), f.Number()))
		}
		for i := range m.Messages().Len() {
			message(m.Messages().Get(i))
		}
	}
	file := File_appliance_api_rpc_oippb_oip_proto
	for i := range file.Messages().Len() {
		message(file.Messages().Get(i))
	}
	methods := file.Services().ByName("GRPCInferenceService").Methods()
	for i := range methods.Len() {
		m := methods.Get(i)
		streamed := ""
		if m.IsStreamingClient() && m.IsStreamingServer() {
			streamed = " streamed"
		}
		list = append(list, fmt.Sprintf("rpc %s %s %s%s", m.Name(), m.Input().Name(), m.Output().Name(), streamed))
	}
	slices.Sort(list)
	return list
}

// TestNumbersAreThePublishedOnes holds them against testdata/published.txt, which was printed from the descriptors in tritonclient 2.73.0: of the
// messages and methods that are here, name, type and number of each field.
func TestNumbersAreThePublishedOnes(t *testing.T) {
	text, err := os.ReadFile("testdata/published.txt")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(strings.TrimSpace(string(text)), "\n")
	slices.Sort(want)
	got := described()
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("%s is not published", line)
		}
	}
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("%s is missing", line)
		}
	}
}

// TestGeneratedFileIsCurrent compares the fields and methods, by name and number, with the text of oip.proto.
func TestGeneratedFileIsCurrent(t *testing.T) {
	text, err := os.ReadFile("oip.proto")
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	line := regexp.MustCompile(`(?m)^\s+(?:repeated |map<string, )?(\w+)>? (\w+) = (\d+);|^\s+rpc (\w+)\(`)
	for _, m := range line.FindAllStringSubmatch(string(text), -1) {
		want = append(want, m[2]+m[4]+" "+m[3])
	}
	short := regexp.MustCompile(`^(?:\S+\.(\w+) .*?(\d+)|rpc (\w+) .*)$`)
	for _, d := range described() {
		m := short.FindStringSubmatch(d)
		got = append(got, m[1]+m[3]+" "+m[2])
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) || len(want) < 100 {
		t.Errorf("oip.pb.go has\n%q\nand oip.proto\n%q\nits first lines say how to make the one of the other", got, want)
	}
}
