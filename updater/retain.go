// retain.go: old version folders: which of them may be removed, and when they fill the disk.
package updater

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	keptProven    = 256                // numbers of good versions that are remembered per model
	removedPrefix = ".inferd-removed-" // what a folder is called while it is being removed: no version
	removeRetry   = 10 * time.Minute   // after a removal that failed
	fullShare     = 10                 // a disk with less than one part in so many free is nearly full
)

// disk is the room on a base path's file system, in bytes; zero where it is not known.
type disk struct{ Free, Whole int64 }

func diskOf(path string) disk {
	var s unix.Statfs_t
	if unix.Statfs(path, &s) != nil {
		return disk{}
	}
	return disk{Free: int64(s.Bavail) * s.Bsize, Whole: int64(s.Blocks) * s.Bsize}
}

// surplus are the folders that the model may do without: behind its newest Retain good versions, good once or refused, and neither
// wanted, busy, pinned, labelled, part of a rollback, nor the last good one. What was never tried is nobody's to remove.
func (m *model) surplus(wanted []string) []*version {
	var proven []int64
	for _, v := range m.ordered() { // highest first
		if v.present && !v.kept && v.state != StateQuarantined && slices.Contains(m.rec.Proven, v.number) {
			proven = append(proven, v.number)
		}
	}
	if m.Retain <= 0 || len(proven) < m.Retain {
		return nil
	}
	oldest := proven[m.Retain-1]
	stays := slices.Clone(wanted)
	var numbers []int64
	for _, g := range m.rec.counted(m.live()) {
		stays = append(stays, g.Dir)
	}
	numbers = m.labelled(numbers)
	for n := range m.first {
		numbers = append(numbers, n)
	}
	if p := m.rec.Pin; p != nil {
		numbers = append(numbers, p.Number)
	}
	if b := m.rec.Back; b != nil {
		numbers = append(numbers, b.From, b.To)
	}
	var out []*version
	for _, v := range m.ordered() {
		idle := v.state == StateQuarantined || ((v.state == StateSeen || v.state == StateRetired) && slices.Contains(m.rec.Proven, v.number))
		if idle && v.present && !v.kept && v.number < oldest && !slices.Contains(stays, v.dir) && !slices.Contains(numbers, v.number) {
			out = append(out, v)
		}
	}
	return out
}

// startTidy removes what the model may do without, one job at a time.
func (l *loop) startTidy(m *model, wanted []string, now time.Time) {
	if m.tidying || m.tidyAt.After(now) || m.Retain <= 0 || m.base != baseThere {
		return
	}
	surplus := m.surplus(wanted)
	if len(surplus) == 0 {
		return
	}
	m.tidying = true
	l.jobs++
	base, dirs := m.BasePath, make([]string, len(surplus))
	for i, v := range surplus {
		dirs[i] = v.dir
	}
	go func() {
		err := removeLeftovers(base)
		removed := make([]bool, len(dirs))
		for i, dir := range dirs {
			e := removeFolder(dir)
			removed[i], err = e == nil, errors.Join(err, e)
		}
		l.post(func() {
			l.jobs--
			m.tidying = false
			if err != nil {
				m.tidyAt = time.Now().Add(removeRetry)
				l.log.Warn("old versions could not be removed", "model", m.Name, "err", err, "wait", removeRetry)
			}
			if l.stopping || l.models[m.Name] != m {
				return
			}
			for i, v := range surplus {
				if removed[i] {
					v.present = false
					l.log.Info("old version's folder removed", "model", m.Name, "version", v.number, "path", v.dir)
					l.note(m, "removed", v.number, fmt.Sprintf("behind the newest %d good versions (retain)", m.Retain))
				}
			}
			l.dropAbsent(m)
			m.hint(l, time.Now())
			l.tend(m, time.Now())
		})
	}()
}

// removeFolder takes a version folder away in one step, so that no half of it is ever seen, and then removes its files. Of a link, the
// link alone goes.
func removeFolder(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeSymlink != 0 {
		return os.Remove(dir)
	}
	out := filepath.Join(filepath.Dir(dir), removedPrefix+filepath.Base(dir)+"-"+strconv.FormatInt(time.Now().UnixNano(), 36))
	if err := os.Rename(dir, out); err != nil {
		return err
	}
	return os.RemoveAll(out)
}

// removeLeftovers removes what a removal left that was interrupted.
func removeLeftovers(base string) error {
	entries, err := os.ReadDir(base)
	errs := []error{err}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), removedPrefix) {
			errs = append(errs, os.RemoveAll(filepath.Join(base, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// counted are the good versions that count: those that are live, and the newest one beside them.
func (r *chronicle) counted(live []int64) (out []*good) {
	others := 0
	for i := range r.Good {
		g := &r.Good[i]
		if !slices.Contains(live, g.Number) {
			if others++; others > 1 {
				continue
			}
		}
		out = append(out, g)
	}
	return out
}

// proven remembers that the number was good once.
func (r *chronicle) proven(number int64) {
	r.Proven = append(slices.DeleteFunc(r.Proven, func(n int64) bool { return n == number }), number)
	if n := len(r.Proven) - keptProven; n > 0 {
		r.Proven = slices.Delete(r.Proven, 0, n)
	}
}

// crowded says that old versions fill the disk, "" while they do not.
func (m *model) crowded(wanted []string) string {
	if m.disk.Whole == 0 || m.disk.Free >= m.disk.Whole/fullShare {
		return ""
	}
	var bytes int64
	var numbers []string
	for _, v := range m.ordered() {
		if v.present && !v.kept && !slices.Contains(wanted, v.dir) && (v.state == StateSeen || v.state == StateRetired || v.state == StateQuarantined) {
			bytes += v.sight.Print.Bytes
			numbers = append(numbers, strconv.FormatInt(v.number, 10))
		}
	}
	if bytes < m.disk.Whole/fullShare/2 {
		return ""
	}
	return fmt.Sprintf("%d MB of %d MB are free under %s, and versions that are not served take %d MB of it: %s; remove those that nobody needs, or let `retain` do it",
		m.disk.Free>>20, m.disk.Whole>>20, m.BasePath, bytes>>20, strings.Join(numbers, ", "))
}
