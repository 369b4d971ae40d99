// stats.go: what /proc says about a process's memory.
package worker

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// Memory of a process, in bytes.
type Memory struct {
	Resident int64 // anonymous and shared pages that it has touched: what counts towards its limit
	Private  int64 // pages that are nobody else's, files not counted
	PSS      int64 // proportional: what is shared counts in parts
}

// readMemory reads the resident size only, which is cheap.
func readMemory(pid int) (Memory, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Memory{}, err
	}
	return Memory{Resident: procField(b, "RssAnon:") + procField(b, "RssShmem:")}, nil
}

// readAllMemory also walks the page tables: milliseconds for a large process.
func readAllMemory(pid int) (Memory, error) {
	m, err := readMemory(pid)
	if err != nil {
		return m, err
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return m, err
	}
	m.Private, m.PSS = procField(b, "Private_Dirty:"), procField(b, "Pss:")
	return m, nil
}

// procField is the bytes on the line that begins with name, which the kernel prints in kB; 0 when there is none.
func procField(text []byte, name string) int64 {
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok {
			fields := bytes.Fields(rest)
			if len(fields) == 0 {
				return 0
			}
			kb, _ := strconv.ParseInt(string(fields[0]), 10, 64) // 0 where it is no number
			return kb << 10
		}
	}
	return 0
}

// Vitals are the deaths of the worker (but for want of a processor at low priority), why it died last, and the bytes that it uses now (0 while there is none). Unlike Stats it does not
// walk page tables.
func (m *Model) Vitals() (deaths int, last string, bytes int64) {
	if m.closed.Load() {
		return 0, "", 0
	}
	m.unit.mu.Lock()
	deaths = m.unit.deaths
	if m.unit.death != nil {
		last = m.unit.death.Reason
	}
	m.unit.mu.Unlock()
	if _, p := m.unit.stats(); p != nil {
		if mem, err := readMemory(p.pid); err == nil { // else it has just ended
			bytes = mem.Resident
		}
	}
	return deaths, last, bytes
}

// State is how the worker is at the moment. Unlike Stats it costs nothing.
func (m *Model) State() State {
	if m.closed.Load() {
		return Closed
	}
	s, _ := m.unit.stats()
	return s.State
}
