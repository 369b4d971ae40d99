// device_test.go: answers of a driver in its documented form, and where workers are put for them.
package device

import (
	"errors"
	"strings"
	"testing"
)

const two = `0, GPU-5f1c6f1e-0a1b-2c3d-4e5f-000000000000, NVIDIA H200, 143771, 142100, 9.0
1, GPU-5f1c6f1e-0a1b-2c3d-4e5f-000000000001, Tesla K80, 11441, 11000, 3.7
`

func TestParseSMI(t *testing.T) {
	got, err := ParseSMI(two)
	if err != nil || len(got) != 2 {
		t.Fatal(got, err)
	}
	if want := (GPU{0, "GPU-5f1c6f1e-0a1b-2c3d-4e5f-000000000000", "NVIDIA H200", 143771 << 20, 142100 << 20, "9.0"}); got[0] != want {
		t.Errorf("read %+v, want %+v", got[0], want)
	}
	for _, none := range []string{"", "\n", "No devices were found\n"} {
		if got, err := ParseSMI(none); err != nil || got != nil {
			t.Errorf("%q: %v, %v", none, got, err)
		}
	}
	old, err := ParseSMI("0, GPU-1, Quadro, with comma and [N/A], 1, 1, 1")
	if err == nil {
		t.Errorf("a name with a comma was read as %+v", old)
	}
	if got, err := ParseSMI("0, GPU-1, Old, 100, 50, [N/A]"); err != nil || got[0].Capability != "" {
		t.Errorf("a driver that does not know the capability: %+v, %v", got, err)
	}
	for name, bad := range map[string]string{
		"sentence":         "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
		"fields":           "0, GPU-1, X, 100",
		"index":            "x, GPU-1, X, 100, 50, 9.0",
		"negative index":   "-1, GPU-1, X, 100, 50, 9.0",
		"twice":            "0, GPU-1, X, 100, 50, 9.0\n0, GPU-1, X, 100, 50, 9.0",
		"uuid":             "0, whatever, X, 100, 50, 9.0",
		"memory":           "0, GPU-1, X, [N/A], 50, 9.0",
		"overflow":         "0, GPU-1, X, 99999999999999999, 50, 9.0",
		"free above total": "0, GPU-1, X, 100, 101, 9.0",
	} {
		if got, err := ParseSMI(bad); err == nil {
			t.Errorf("%s: read as %+v", name, got)
		} else if !strings.Contains(err.Error(), "nvidia-smi") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseSMI(f *testing.F) {
	f.Add(two)
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

func TestPlace(t *testing.T) {
	const gib = 1 << 30
	gpus := []GPU{{Index: 0, TotalBytes: 16 * gib, FreeBytes: 10 * gib, Capability: "7.5"}, {Index: 1, TotalBytes: 16 * gib, FreeBytes: 14 * gib, Capability: "3.7"}}
	for _, c := range []struct {
		name     string
		r        Request
		promised map[int]int64
		probe    error
		want     int // index, -1 for the CPU, -2 for an error
		reason   string
	}{
		{"most room", Request{NeedBytes: gib, Pinned: -1}, nil, nil, 1, "most room"},
		{"promises count", Request{NeedBytes: gib, Pinned: -1}, map[int]int64{1: 10 * gib}, nil, 0, "most room"},
		{"too old", Request{NeedBytes: gib, Pinned: -1, MinCapability: "6.0"}, nil, nil, 0, "most room"},
		{"pinned", Request{NeedBytes: gib, Pinned: 0}, nil, nil, 0, "most room"},
		{"pinned and too old", Request{NeedBytes: gib, Pinned: 1, MinCapability: "6.0"}, nil, nil, -1, "compute capability 3.7"},
		{"pinned to nothing", Request{NeedBytes: gib, Pinned: 7}, nil, nil, -1, "no GPU 7"},
		{"too large", Request{NeedBytes: 15 * gib, Pinned: -1}, nil, nil, -1, "15872 MiB are needed"},
		{"all promised", Request{NeedBytes: gib, Pinned: -1}, map[int]int64{0: 16 * gib, 1: 17 * gib}, nil, -1, "room for 0 MiB"},
		{"asked for the CPU", Request{Mode: CPUOnly, Pinned: -1}, nil, nil, -1, "asks for the CPU"},
		{"no driver", Request{NeedBytes: gib, Pinned: -1}, nil, errors.New("not found"), -1, "does not answer: not found"},
		{"must have one", Request{Mode: GPUOnly, NeedBytes: 15 * gib, Pinned: -1}, nil, nil, -2, "are needed"},
		{"must have one and no driver", Request{Mode: GPUOnly, Pinned: -1}, nil, errors.New("not found"), -2, "not found"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Place(c.r, gpus, c.promised, c.probe)
			index, reason := -1, got.Reason
			if got.GPU != nil {
				index = got.GPU.Index
				if got.LimitBytes != c.r.NeedBytes+ContextBytes || got.Fraction <= 0 || got.Fraction*float64(got.GPU.TotalBytes) < float64(got.LimitBytes) {
					t.Errorf("limits %+v", got)
				}
			}
			if err != nil {
				index, reason = -2, err.Error()
			}
			if index != c.want || !strings.Contains(reason, c.reason) {
				t.Errorf("placed on %d because %q, want %d because %q", index, reason, c.want, c.reason)
			}
		})
	}
	if got, err := Place(Request{Pinned: -1}, nil, nil, nil); err != nil || got.GPU != nil || got.Reason != "there is no GPU" {
		t.Errorf("without any: %+v, %v", got, err)
	}
}

func TestFraction(t *testing.T) {
	for _, c := range []struct {
		limit, total int64
		want         float64
	}{{1, 1 << 40, 0.0001}, {1 << 30, 4 << 30, 0.25}, {5, 4, 1}, {4, 4, 1}, {1, 0, 1}, {1 << 30, 3 << 30, 0.3334}} {
		if got := Fraction(c.limit, c.total); got != c.want {
			t.Errorf("Fraction(%d, %d) = %v, want %v", c.limit, c.total, got, c.want)
		}
	}
}
