// journald_test.go: a real journald, in a mount namespace of its own, and what it has of an inferd whose standard error it is.
package deploy

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// journaldScript runs inferd with journald's stream as its standard error, as systemd does, and prints the journal. systemd-cat does not say which
// stream it is, as systemd does, so the script does.
const journaldScript = `set -eu
mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /var/log
mkdir -p /run/systemd/journal /run/log/journal
/lib/systemd/systemd-journald >/run/journald.log 2>&1 & journald=$!
for i in $(seq 600); do test -S /run/systemd/journal/stdout && break; sleep 0.05; done
systemd-cat sh -c 'JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$INFERD" serve --models-dir "$MODELS" --runtime "$LIBTENSORFLOW" \
  --state-dir /run/state --http 127.0.0.1:0 --grpc 127.0.0.1:0 --listen.control /run/c --updater.settle_time=200ms' & inferd=$!
for i in $(seq 600); do "$INFERD" models --address /run/c 2>/dev/null | grep -q AVAILABLE && break; sleep 0.1; done
for i in $(seq 600); do journalctl --sync; journalctl --no-pager -o cat SYSLOG_IDENTIFIER=inferd | grep -q '^version refused' && break; sleep 0.1; done
kill -TERM $inferd; wait $inferd
journalctl --sync
journalctl --no-pager -o json SYSLOG_IDENTIFIER=inferd
kill $journald
`

func TestJournald(t *testing.T) {
	lib := runtime(t)
	tool(t, "journalctl", "systemd")
	tool(t, "unshare", "util-linux")
	if _, err := os.Stat("/lib/systemd/systemd-journald"); err != nil || os.Getuid() != 0 {
		t.Skip("a journald of its own needs root and /lib/systemd/systemd-journald (apt-get install systemd)")
	}
	dir := models(t)
	if err := os.MkdirAll(filepath.Join(dir, "broken", "1"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "broken", "1", "saved_model.pb"), "no SavedModel")
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", journaldScript)
	cmd.Env = append(os.Environ(), "INFERD="+binary, "MODELS="+dir, "LIBTENSORFLOW="+lib)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		if strings.Contains(errs.String(), "Operation not permitted") || strings.Contains(errs.String(), "permission denied") {
			t.Skipf("no mount namespace is to be had here: %s", &errs)
		}
		t.Fatalf("%v\n%s\n%s", err, &errs, out)
	}
	events := map[string]map[string]string{}
	for line := range strings.Lines(string(out)) {
		var r map[string]any
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		record := map[string]string{}
		for k, v := range r {
			if s, ok := v.(string); ok {
				record[k] = s
			}
		}
		events[record["EVENT"]+" "+record["MODEL"]] = record
	}
	for event, want := range map[string]map[string]string{
		"version live half_plus_two": {"PRIORITY": "6", "COMPONENT": "updater", "VERSION": "1", "_TRANSPORT": "journal"},
		"version refused broken":     {"PRIORITY": "3", "COMPONENT": "updater", "VERSION": "1"},
		"doors are open ":            {"PRIORITY": "6"},
		"stopped ":                   {"PRIORITY": "6"},
	} {
		got, ok := events[event]
		if !ok {
			t.Errorf("the journal has no %q: %s", event, out)
			continue
		}
		for k, v := range want {
			if got[k] != v {
				t.Errorf("%q has %s=%q, want %q: %v", event, k, got[k], v, got)
			}
		}
	}
	if r := events["version refused broken"]; r["ERR"] == "" || !strings.HasPrefix(r["MESSAGE"], "version refused component=updater model=broken") || strings.Contains(r["MESSAGE"], "level=") {
		t.Errorf("the refusal is %v", r)
	}
}
