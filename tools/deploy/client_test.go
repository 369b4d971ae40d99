// client_test.go: the example of a Python client, against a real inferd that answers, refuses, is not there yet, and does not know the model.
package deploy

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

const examplePython = "../../build/venv/bin/python"

// example runs the client and returns its exit code and what it printed.
func example(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	if _, err := os.Stat(examplePython); err != nil {
		t.Skip("no tensorflow-serving-api: tools/fetch.sh venv brings it into build/venv")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, examplePython, append([]string{"../../clients/python/examples/predict_grpc.py"}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()
}

func TestPythonExample(t *testing.T) {
	dir := models(t)

	t.Run("answered", func(t *testing.T) {
		d := start(t, dir)
		if code, out, errs := example(t, d.grpc, "half_plus_two"); code != 0 || out != "y [[2.5], [3.0], [4.5]]\n" || errs != "" {
			t.Errorf("%d %q %q", code, out, errs)
		}
		code, out, errs := example(t, d.grpc, "nobody")
		if code != 1 || out != "" || !strings.HasPrefix(errs, "NOT_FOUND: ") || strings.Contains(errs, "again") {
			t.Errorf("a model that is not there: %d %q %q", code, out, errs)
		}
	})

	t.Run("refused for its rate", func(t *testing.T) {
		d := start(t, dir, "--admission.client_rate=0.5", "--admission.client_burst=1")
		code, out, errs := example(t, d.grpc, "half_plus_two", "--repeat=3")
		if code != 0 || strings.Count(out, "y [[2.5]") != 3 || !strings.Contains(errs, "RESOURCE_EXHAUSTED: ") || !strings.Contains(errs, "(as inferd said)") {
			t.Errorf("%d %q %q", code, out, errs)
		}
		if strings.Contains(errs, "of its own") || strings.Count(errs, "again in") > 3 {
			t.Errorf("it did not wait as it was told: %s", errs)
		}
	})

	t.Run("not there yet", func(t *testing.T) {
		address := "127.0.0.1:" + freePort(t)
		code, out, errs := example(t, address, "half_plus_two", "--patience=1")
		if code != 1 || out != "" || !strings.Contains(errs, "UNAVAILABLE: ") || !strings.Contains(errs, "(of its own)") {
			t.Errorf("for good: %d %q %q", code, out, errs)
		}
		type result struct {
			code      int
			out, errs string
		}
		done := make(chan result, 1)
		go func() {
			code, out, errs := example(t, address, "half_plus_two", "--patience=90", "--repeat=2")
			done <- result{code, out, errs}
		}()
		start(t, dir, "--grpc="+address)
		if r := <-done; r.code != 0 || strings.Count(r.out, "y [[2.5]") != 2 {
			t.Errorf("%+v", r)
		}
	})
}
