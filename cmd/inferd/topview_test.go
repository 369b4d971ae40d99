// topview_test.go: how `inferd top` looks.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/inferd/inferd/appliance/admission"
)

var update = flag.Bool("update", false, "write the golden files anew")

func topReport() *admission.Report {
	return &admission.Report{
		Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Free: 300 << 20,
		Limit: admission.LimitReport{Bytes: 1 << 30, Reserve: 64 << 20, Source: "cgroup v2", Why: "memory.max of /system.slice/inferd.service", Used: 700 << 20},
		Memory: []admission.OwnerReport{
			{Owner: "worker", Model: "resnet", Version: 3, Booked: 512 << 20, Measured: 300 << 20, Peak: 400 << 20, Limit: 600 << 20},
			{Owner: "worker", Model: "evil\x1b[2J\u202ename", Version: 1, Booked: 100 << 20},
			{Owner: "core", Booked: 40 << 20, Measured: 42 << 20},
		},
		Requests: admission.RequestsReport{Running: 2, Waiting: 17, WaitingBytes: 3 << 20, InFlight: 5 << 20, Share: 128 << 20, Refused: map[string]int64{"deadline": 12, "queue_full": 0, "rate": 3}},
		Models: []admission.ModelReport{
			{Model: "evil\x1b[2J\u202ename", Version: 1, State: "parked", Pinned: true, IdleSeconds: 75.5},
			{Model: "resnet", Version: 3, State: "live", Running: 2, Waiting: 17, WaitMillis: 183.4, Batch: 3.25, Rate: 87.61, P50Millis: 12.34, P99Millis: 190.2, Answered: 123456, Refused: map[string]int64{"deadline": 12}},
		},
		Clients:  []admission.ClientReport{{Client: "127.0.0.2", Weight: 1, Running: 2, Rate: 80, Refused: 15}},
		Pressure: admission.PressureReport{Known: true, Level: "some", Some10: 1.25, Events: map[string]int64{"high": 4}},
		Disk:     admission.DiskReport{Free: 9 << 30, Floor: 512 << 20},
	}
}

func TestTopView(t *testing.T) {
	got := topView(topReport(), 132, false)
	file := "testdata/top.golden"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
	for _, width := range []int{0, 20, 79, 400} {
		for l := range strings.Lines(topView(topReport(), width, true)) {
			l = strings.NewReplacer(ansiBold, "", ansiRed, "", ansiYellow, "", ansiOff, "", "\n", "").Replace(l)
			if utf8.RuneCountInString(l) > max(width, 20) || strings.ContainsAny(l, "\x1b\u202e") {
				t.Errorf("width %d: line %q", width, l)
			}
		}
	}
	if got := topView(&admission.Report{}, 80, false); !strings.Contains(got, "no limit is known") || !strings.Contains(got, "no models") {
		t.Errorf("an empty report:\n%s", got)
	}
	low := topReport()
	low.Disk.Refuses = true
	if got := topView(low, 80, true); !strings.Contains(got, ansiRed+"disk: 9.0 GiB free, below the floor of 512.0 MiB: durable work is refused") {
		t.Errorf("%q", got)
	}
}

func TestTopFrame(t *testing.T) {
	got := frame("a\nb\nc\nd\n", 4)
	if got != "\x1b[Ha\x1b[K\nb\x1b[K\n... (a higher terminal shows more)\x1b[K\n\x1b[J" {
		t.Errorf("%q", got)
	}
}

// The verb against a server of GET /v1/admission: once where there is no terminal, -n times, as JSON, and its errors.
func TestTop(t *testing.T) {
	asked := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/admission" {
			http.NotFound(w, r)
			return
		}
		asked++
		json.NewEncoder(w).Encode(topReport())
	}))
	defer s.Close()
	top := func(args ...string) (code int, out, errOut string) {
		var o, e bytes.Buffer
		code = cli(append([]string{"inferd", "top"}, args...), nil, &o, &e)
		return code, o.String(), e.String()
	}
	if code, out, _ := top("--address", s.URL); code != 0 || asked != 1 || out != topView(topReport(), snapshotWide, false) {
		t.Errorf("exit %d after %d questions:\n%s", code, asked, out)
	}
	code, out, _ := top("--address", s.URL, "-n", "2", "--every", "100ms", "-o", "json")
	var r admission.Report
	dec := json.NewDecoder(strings.NewReader(out))
	if err := dec.Decode(&r); code != 0 || err != nil || r.Limit.Bytes != 1<<30 || asked != 3 || !dec.More() {
		t.Errorf("exit %d after %d questions: %v\n%s", code, asked, err, out)
	}
	for want, args := range map[string][]string{
		"has no /v1/admission": {"--address", s.URL + "/elsewhere"}, "write 100ms to 1h": {"--every", "1ms"}, "-n -1": {"-n", "-1"},
	} {
		if code, _, errOut := top(args...); code == 0 || !strings.Contains(errOut, want) {
			t.Errorf("%v: exit %d, %s", args, code, errOut)
		}
	}
}

func TestTopEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(topReport())
		cancel()
	}))
	defer s.Close()
	var out bytes.Buffer
	e := &env{out: &out, output: formatTable, address: s.URL}
	c, err := e.client()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := e.top(ctx, c, screen{is: true, width: 80, height: 24}, true, 0, time.Hour); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.HasPrefix(got, ansiHide) || !strings.HasSuffix(got, ansiShow) {
		t.Errorf("the cursor was not shown again: %q", got)
	}
}
