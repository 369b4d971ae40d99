// change_test.go: an upgrade, a reload, a stop, a series of short lives, and what the journal has of it all.
package systemtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// TestUpgradeUnderLoad: while the package is replaced the sockets listen on. No connection is refused, no job is lost, and a prediction waits
// for one drain and one start at most.
func TestUpgradeUnderLoad(t *testing.T) {
	t.Parallel()
	m := installed(t, map[string]*modeltest.Model{"m": modeltest.HalfPlusTwo()})
	before := m.run(t, "dpkg-query", "-W", "-f", "${Version}", "inferd")
	paths := m.bring(t, packages(t, "v2"))
	pid := m.pid()
	c := newClients(t, m)
	c.predict(3)
	c.submit(2)
	c.more(20)
	began := time.Now()
	m.install(t, paths)
	m.active(t, pid)
	took := time.Since(began)
	c.more(20)
	c.moreAnswers(20)
	after := m.run(t, "dpkg-query", "-W", "-f", "${Version}", "inferd")
	if before == after {
		t.Fatalf("nothing was upgraded: %s", before)
	}
	c.settle()
	t.Logf("from %s to %s in %v; the longest that a prediction took was %v", before, after, took.Round(10*time.Millisecond), c.slowest.Round(time.Millisecond))
	if c.refused > 0 {
		t.Errorf("%d connections were refused", c.refused)
	}
	c.noneFailed()
	if stop := 60 * time.Second; c.slowest > stop { // TimeoutStopSec: where a drain ends at the latest
		t.Errorf("a prediction took %v, more than a drain may", c.slowest)
	}
	m.queueIsSound(t)
}

// TestReload: systemctl reload takes the new configuration into force in the same process, and refuses a wrong one whole.
func TestReload(t *testing.T) {
	t.Parallel()
	m := installed(t, map[string]*modeltest.Model{"m": modeltest.HalfPlusTwo()})
	if _, err := modeltest.Affine(1, 7).Publish(filepath.Join(m.Root(), "srv/b"), 1); err != nil {
		t.Fatal(err)
	}
	pid := m.pid()
	c := newClients(t, m)
	c.predict(2)
	m.write(t, "/etc/inferd/inferd.yaml", "models: [{name: b, base_path: /srv/b}]\n")
	m.run(t, "systemctl", "reload", "inferd.service")
	m.answers(t, "b", 0, 7)
	m.write(t, "/etc/inferd/inferd.yaml", "modles: []\n")
	if out, err := m.Run(t.Context(), "systemctl", "reload", "inferd.service"); err == nil {
		t.Errorf("a wrong configuration was taken: %s", out)
	}
	m.answers(t, "b", 0, 7)
	c.moreAnswers(10)
	c.end()
	if now := m.pid(); now != pid || m.prop("ActiveState") != "active" {
		t.Errorf("the daemon was %d and is %d, %s", pid, now, m.prop("ActiveState"))
	}
	c.noneFailed()
	t.Log(grep(m.journal(t), "modles", 3))
}

// TestStopDrains: what was being answered when systemctl stop came is answered, and the service ends well.
func TestStopDrains(t *testing.T) {
	t.Parallel()
	m := installed(t, map[string]*modeltest.Model{"m": modeltest.HalfPlusTwo(), "sleepy": modeltest.Sleepy()})
	c := newClients(t, m)
	c.submit(2)
	c.more(10)
	const asked = 6 // more than run at once: the last of them wait inside
	answers := make(chan error, asked)
	client := m.HTTP()
	for range asked {
		go func() { answers <- m.ask(t.Context(), client, "sleepy", 3, 3) }()
	}
	eventually(t, 30*time.Second, func() error {
		_, body, err := m.call(t.Context(), client, "GET", "/metrics", "")
		if err == nil && !waiting(body, "sleepy") {
			err = errors.New("nothing waits behind what runs yet")
		}
		return err
	})
	began := time.Now()
	m.run(t, "systemctl", "stop", "inferd.service")
	t.Logf("systemctl stop took %v: result %s, exit status %s", time.Since(began).Round(10*time.Millisecond), m.prop("Result"), m.prop("ExecMainStatus"))
	for range asked {
		if err := <-answers; err != nil {
			t.Errorf("what was being answered was lost: %v", err)
		}
	}
	if result := m.prop("Result"); result != "success" {
		t.Errorf("the service ended with %s", result)
	}
	// The submits that go on have it started again: the sockets listen.
	m.active(t, 0)
	c.more(10)
	c.settle()
	if c.refused > 0 {
		t.Errorf("%d connections were refused", c.refused)
	}
}

// waiting reports whether requests of the model wait for a run, as the metrics say.
func waiting(metrics, model string) bool {
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, `inferd_batch_queued{model="`+model+`"`) && !strings.HasSuffix(strings.TrimSpace(line), " 0") {
			return true
		}
	}
	return false
}

// TestSafeStart: after three short lives the next one is a safe start, which serves what was good, takes no new version, and says so.
func TestSafeStart(t *testing.T) {
	t.Parallel()
	m := installed(t, map[string]*modeltest.Model{"m": modeltest.HalfPlusTwo()})
	c := newClients(t, m)
	c.submit(1)
	c.more(5)
	c.end()
	for range 3 {
		pid := m.pid()
		m.run(t, "kill", "-9", fmt.Sprint(pid))
		m.active(t, pid)
	}
	t.Log("the condition says:", m.condition(t, "safe_start", "safe-start"))
	m.answers(t, "m", 0, 2)
	m.publish(t, "m", 2, modeltest.Affine(1, 9))
	m.run(t, "inferd", "rescan")
	m.answers(t, "m", 0, 2) // version 1 still
	if st := m.try("inferd", "status"); !strings.Contains(st, "safe") {
		t.Errorf("inferd status does not say that it is a safe start:\n%s", st)
	}
	c.settle()
}

// TestJournalFields: what inferd logs can be asked for by field.
func TestJournalFields(t *testing.T) {
	t.Parallel()
	m := installed(t, map[string]*modeltest.Model{"m": modeltest.HalfPlusTwo()})
	out := m.run(t, "journalctl", "-u", "inferd.service", "MODEL=m", "--no-pager", "-o", "json")
	var event map[string]any
	if err := json.Unmarshal([]byte(strings.SplitN(out, "\n", 2)[0]), &event); err != nil {
		t.Fatalf("no event has MODEL=m: %v: %s", err, out)
	}
	for _, field := range []string{"MESSAGE", "EVENT", "PRIORITY", "MODEL"} {
		if event[field] == nil {
			t.Errorf("the event has no %s: %v", field, event)
		}
	}
	t.Log("an event:", lastLine(m.run(t, "journalctl", "-u", "inferd.service", "MODEL=m", "--no-pager", "-o", "json", "--output-fields=MESSAGE,EVENT,PRIORITY,MODEL,VERSION,COMPONENT")))
	if out := m.try("journalctl", "-u", "inferd.service", "-p", "warning", "--no-pager", "-o", "cat"); out != "" && !strings.Contains(out, "No entries") {
		t.Logf("with priority warning or worse: %s", tail(out, 1000))
	}
}
