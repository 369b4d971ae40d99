// recover.go: what the life before has left.
package reqlog

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/inferd/inferd/inference/savedmodel"
)

// recover counts the finished files, and finishes those that were being written when the life before ended.
func (w *writer) recover() {
	models, err := os.ReadDir(w.opts.Dir)
	if err != nil {
		if !os.IsNotExist(err) {
			w.opts.Log.Warn("request logs from before are not found, and count for nothing", "path", w.opts.Dir, "err", err)
		}
		return
	}
	for _, m := range models {
		dir := filepath.Join(w.opts.Dir, m.Name())
		list, err := os.ReadDir(dir)
		if err != nil {
			continue // no folder of ours
		}
		for _, f := range list {
			w.recoverFile(filepath.Join(dir, f.Name()), f)
		}
	}
	slices.SortFunc(w.closed, func(a, b finished) int { return a.at.Compare(b.at) })
}

func (w *writer) recoverFile(name string, entry fs.DirEntry) {
	info, err := entry.Info()
	if err != nil || !info.Mode().IsRegular() {
		return
	}
	final, unfinished := strings.CutSuffix(name, part)
	size := info.Size()
	switch filepath.Ext(final) {
	case TFRecord.extension(), JSON.extension():
	default:
		return // not ours
	}
	if unfinished {
		if size, err = cutToWhole(name, strings.HasSuffix(final, TFRecord.extension())); err == nil && size > 0 {
			err = os.Rename(name, final)
		}
		if err != nil {
			w.opts.Log.Warn("request log from before was not finished", "path", name, "err", err)
			return
		}
		if size == 0 {
			_ = os.Remove(name)
			return
		}
	}
	w.total += size
	w.closed = append(w.closed, finished{final, size, info.ModTime()})
}

// cutToWhole cuts the file behind its last whole record, and is its size then.
func cutToWhole(name string, records bool) (int64, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // Truncate has said whether it worked
	var size int64
	if records {
		size, _ = savedmodel.WholeRecords(f, 2*maxRecord)
	} else if size, err = wholeLines(f); err != nil {
		return 0, err
	}
	return size, f.Truncate(size)
}

// wholeLines is the offset behind the last line break.
func wholeLines(f io.Reader) (int64, error) {
	buf := make([]byte, flushBytes)
	at, whole := int64(0), int64(0)
	for {
		n, err := f.Read(buf)
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			whole = at + int64(i) + 1
		}
		at += int64(n)
		switch err {
		case nil:
		case io.EOF:
			return whole, nil
		default:
			return 0, err
		}
	}
}
