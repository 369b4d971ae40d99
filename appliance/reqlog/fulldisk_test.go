// fulldisk_test.go: a disk without room.
package reqlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/inferd/inferd/inference/tensor"
	"github.com/inferd/inferd/tools/namespace"
)

// TestFullDisk: what has no room is lost as a whole record, what was there before stays, and the log goes on when there is room.
func TestFullDisk(t *testing.T) {
	if !namespace.Inside(t, true) {
		return
	}
	dir := t.TempDir()
	namespace.Mount(t, "tmpfs", dir, "tmpfs", 0, "size=256k")
	var told []error
	l := New(Options{Dir: dir, Rule: always(Rule{}), Trouble: func(err error) { told = append(told, err) }})
	w := &writer{Log: l, open: make(map[key]*file)}
	add := func() {
		req, resp := predicted(1)
		req.Inputs[0] = &tensor.Tensor{DType: tensor.Uint8, Shape: tensor.Shape{20_000}, Data: make([]byte, 20_000)}
		w.add(entry{model: "m", data: (&call{at: time.Now(), v: model, req: req, resp: resp}).json(true)})
	}
	added := int64(0)
	for ; !w.failed && added < 100; added++ {
		add()
	}
	add() // it is left alone for a while
	added++
	s := l.Stats()
	if len(told) != 1 || !errors.Is(told[0], syscall.ENOSPC) || s.Dropped[Disk] == 0 || s.Written+s.Dropped[Disk] != added {
		t.Fatalf("after %d records: told %v, %+v", added, told, s)
	}
	lines := int64(0)
	for _, name := range files(t, dir) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range bytes.SplitAfter(bytes.TrimSuffix(b, []byte("\n")), []byte("\n")) {
			if lines++; !json.Valid(text) {
				t.Errorf("%s has a line of %d bytes that is cut off", name, len(text))
			}
		}
	}
	if lines != s.Written {
		t.Errorf("%d lines, and %d were written", lines, s.Written)
	}
	w.down = time.Time{}
	w.opts.MaxBytes = 100_000
	add()
	w.look(time.Now())
	if s := l.Stats(); len(told) != 2 || told[1] != nil || s.Bytes > 100_000 || s.Written != lines+1 {
		t.Errorf("told %v, %+v", told, s)
	}
	w.close()
}
