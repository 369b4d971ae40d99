// device_test.go: recorded answers of nvidia-smi, and which GPUs a worker sees. testdata/smi/README.md says where the answers come from.
package device

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// recorded is a file of testdata/smi: the query that it answers, the answer, and the error that running nvidia-smi gave.
func recorded(t testing.TB, name string) (query, answer string, err error) {
	t.Helper()
	text, readErr := os.ReadFile(filepath.Join("testdata/smi", name+".txt"))
	if readErr != nil {
		t.Fatal(readErr)
	}
	query = Query
	for line := range bytes.Lines(text) {
		switch rest, ours := strings.CutPrefix(string(line), "# "); {
		case !ours:
			answer += string(line)
		case strings.HasPrefix(rest, "old."):
			query = QueryOld
		case strings.HasPrefix(rest, "exit "):
			if code := strings.TrimSpace(rest[5:]); code != "0" {
				if err = exec.CommandContext(t.Context(), "sh", "-c", "exit "+code).Run(); err == nil {
					t.Fatal("no exit code")
				}
			}
		}
	}
	return query, answer, err
}

const (
	mib = 1 << 20
	gib = 1 << 30
)

func TestAnswers(t *testing.T) {
	said := make(map[string]string)
	for name, want := range map[string]string{
		"h200":             "0 NVIDIA H200 143771/142993 9.0",
		"two":              "0 NVIDIA GeForce RTX 4070 12282/11012 8.9, 1 Tesla K80 11441/11436 3.7",
		"mig":              "0 NVIDIA A100-SXM4-80GB 81920/81037 8.0 MIG",
		"mig-container":    "0 NVIDIA A100-SXM4-80GB 0/0 8.0 MIG",
		"unified":          "0 NVIDIA GB10 0/0 12.1",
		"full":             "0 Tesla T4 15360/0 7.5",
		"old-driver":       "error nvidia-smi (exit status 2): \"Field \\\"compute_cap\\\" is not a valid field to query.\"",
		"old-driver-again": "0 Tesla V100-SXM2-16GB 16160/16157 ",
		"none":             "",
		"no-driver":        "error nvidia-smi (exit status 9): \"NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA driver is installed and running.\"",
		"mismatch":         "error nvidia-smi (exit status 18): \"Failed to initialize NVML: Driver/library version mismatch\"",
		"lost":             "error nvidia-smi (exit status 15): \"Unable to determine the device handle for GPU 0000:02:00.0: GPU is lost.  Reboot the system to recover this GPU\"",
		"warning":          "0 Tesla T4 15360/15096 7.5",
		"silent":           "error nvidia-smi: exit status 255",
	} {
		_, answer, err := recorded(t, name)
		gpus, err := Answer(answer, err)
		said[name] = words(gpus, err)
		if said[name] != want {
			t.Errorf("%s:\n got %s\nwant %s", name, said[name], want)
		}
		if old := TooOld(answer); old != (name == "old-driver") {
			t.Errorf("%s: too old: %v", name, old)
		}
	}
	files, _ := filepath.Glob("testdata/smi/*.txt")
	if len(files) != len(said) {
		t.Errorf("%d recorded answers, %d looked at", len(files), len(said))
	}
}

func words(gpus []GPU, err error) string {
	if err != nil {
		return "error " + err.Error()
	}
	var all []string
	for _, g := range gpus {
		s := fmt.Sprintf("%d %s %d/%d %s", g.Index, g.Name, g.TotalBytes/mib, g.FreeBytes/mib, g.Capability)
		if g.MIG {
			s += " MIG"
		}
		all = append(all, s)
	}
	return strings.Join(all, ", ")
}

func TestParseSMIRefusesWhatItCannotRead(t *testing.T) {
	for name, bad := range map[string]string{
		"sentence":         "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
		"fields":           "0, GPU-1, X, 100",
		"a comma":          "0, GPU-1, Quadro, with comma, 100, 50",
		"index":            "x, GPU-1, X, 100, 50, 9.0, Disabled",
		"negative index":   "-1, GPU-1, X, 100, 50, 9.0, Disabled",
		"twice":            "0, GPU-1, X, 100, 50, 9.0, Disabled\n0, GPU-1, X, 100, 50, 9.0, Disabled",
		"uuid":             "0, whatever, X, 100, 50, 9.0, Disabled",
		"memory":           "0, GPU-1, X, lots, 50, 9.0, Disabled",
		"negative memory":  "0, GPU-1, X, -100, 50, 9.0, Disabled",
		"overflow":         "0, GPU-1, X, 99999999999999999, 50, 9.0, Disabled",
		"free above total": "0, GPU-1, X, 100, 101, 9.0, Disabled",
	} {
		if got, err := ParseSMI(bad); err == nil {
			t.Errorf("%s: read as %+v", name, got)
		} else if !strings.Contains(err.Error(), "nvidia-smi") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, err := ParseSMI("0, GPU-1, Old, 100, 50, [N/A], [N/A]"); err != nil || got[0].Capability != "" {
		t.Errorf("a driver that does not know the capability: %+v, %v", got, err)
	}
	if got, err := ParseSMI("0, GPU-1, Half, 100, [Unknown Error], 9.0, [N/A]"); err != nil || got[0].known() {
		t.Errorf("a total without what is free: %+v, %v", got, err)
	}
}

func FuzzParseSMI(f *testing.F) {
	for _, name := range []string{"two", "unified", "old-driver-again", "no-driver"} {
		_, answer, _ := recorded(f, name)
		f.Add(answer)
	}
	f.Add("0, GPU-1, \"X, 100, 50, 9.0")
	f.Fuzz(func(t *testing.T, answer string) {
		got, err := ParseSMI(answer)
		for _, g := range got {
			if err != nil || g.FreeBytes < 0 || g.FreeBytes > g.TotalBytes || g.Index < 0 {
				t.Errorf("%+v, %v", g, err)
			}
		}
	})
}

func TestVisible(t *testing.T) {
	all := []GPU{{Index: 1, UUID: "GPU-bb1"}, {Index: 0, UUID: "GPU-aa1"}, {Index: 2, UUID: "GPU-bb2"}}
	for _, c := range []struct {
		list string
		set  bool
		want string // UUIDs in order
	}{
		{"", false, "GPU-aa1 GPU-bb1 GPU-bb2"},
		{"", true, ""},
		{"-1", true, ""},
		{"NoDevFiles", true, ""},
		{"1", true, "GPU-bb1"},
		{"2, 0", true, "GPU-bb2 GPU-aa1"},
		{"0,7,1", true, "GPU-aa1"},
		{"0,0,1", true, "GPU-aa1"},
		{"GPU-aa,2", true, "GPU-aa1 GPU-bb2"},
		{"GPU-bb,0", true, ""}, // of two
		{"MIG-5f1c", true, "MIG-5f1c"},
	} {
		var got []string
		for i, g := range Visible(all, c.list, c.set) {
			got = append(got, g.UUID)
			if g.Ordinal != i {
				t.Errorf("%q: %s has ordinal %d at place %d", c.list, g.UUID, g.Ordinal, i)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%q: sees %v, want %s", c.list, got, c.want)
		}
	}
	if all[0].Index != 1 {
		t.Error("the argument was sorted")
	}
}

func TestRuledOut(t *testing.T) {
	at := func(c string) GPU { return GPU{Capability: c} }
	for _, c := range []struct {
		gpu    string
		failed []string
		want   bool
	}{
		{"8.9", nil, false},
		{"8.9", []string{"8.9"}, true},
		{"3.7", []string{"8.9"}, true},
		{"8.9", []string{"3.7"}, false},
		{"8.9", []string{"3.7", "10.0"}, true},
		{"", []string{"8.9"}, true},
		{"8.9", []string{""}, true},
	} {
		var failed []GPU
		for _, f := range c.failed {
			failed = append(failed, at(f))
		}
		if got := RuledOut(at(c.gpu), failed); got != c.want {
			t.Errorf("%s after %v: %v", c.gpu, c.failed, got)
		}
	}
}

func TestUsable(t *testing.T) {
	plain, unified, mig := GPU{Ordinal: 0, TotalBytes: gib, Capability: "8.9"}, GPU{Ordinal: 1, Capability: "12.1"}, GPU{Ordinal: 2, TotalBytes: gib, MIG: true, Capability: "9.0"}
	for _, c := range []struct {
		name   string
		gpus   []GPU
		named  []int
		failed []GPU
		want   bool
	}{
		{"none", nil, nil, nil, false},
		{"one", []GPU{plain}, nil, nil, true},
		{"not known", []GPU{unified, mig}, nil, nil, false},
		{"not known, named", []GPU{unified, mig}, []int{2}, nil, true},
		{"another is named", []GPU{plain}, []int{3}, nil, false},
		{"ruled out", []GPU{plain}, nil, []GPU{plain}, false},
		{"an older one was ruled out", []GPU{plain}, nil, []GPU{{Capability: "3.7"}}, true},
	} {
		if got := Usable(c.gpus, c.named, c.failed); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestGPUInWords(t *testing.T) {
	for _, c := range []struct{ recording, want string }{
		{"h200", "GPU 0: NVIDIA H200, 140.4 GiB, 139.6 GiB free, compute capability 9.0"},
		{"unified", "GPU 0: NVIDIA GB10, memory not known, compute capability 12.1"},
		{"mig", "GPU 0: NVIDIA A100-SXM4-80GB, split by MIG, compute capability 8.0"},
		{"old-driver-again", "GPU 0: Tesla V100-SXM2-16GB, 15.8 GiB, 15.8 GiB free"},
	} {
		_, answer, err := recorded(t, c.recording)
		gpus, err := Answer(answer, err)
		if err != nil || gpus[0].String() != c.want {
			t.Errorf("%s: %v, %v", c.recording, gpus, err)
		}
	}
}

func TestOrdinals(t *testing.T) {
	for list, want := range map[string][]int{"": nil, "0": {0}, "0, 2": {0, 2}, " 3 ,1": {3, 1}} {
		if got := Ordinals(list); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", list, got, want)
		}
	}
	if n := len(Ordinals(strings.Repeat(strconv.Itoa(7)+",", 3))); n != 3 {
		t.Errorf("%d of 3", n)
	}
}
