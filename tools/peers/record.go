// record.go: what was measured, one JSON object a line, so that a run that was cut off goes on where it stood.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/inferd/inferd/tools/measure"
)

// machine is where and how.
type machine struct {
	CPU        string
	Cores      int
	AVX512     bool
	MemoryGB   int
	Kernel     string
	Go         string
	TensorFlow string
	Inferd     string
	Built      string
	Flags      string  `json:",omitempty"`
	TFS, OVMS  string  `json:",omitempty"`
	Quick      bool    // -quick
	Seconds    float64 // of a measurement
	Pairs      int
}

// cell is what one server did over one protocol with so many connections.
type cell struct {
	Peer, Model, Wire string
	Connections       int
	Rate              float64 // requests per second
	P50, P99          float64 // ms
	Processor         float64 `json:",omitempty"` // of the server, in ms per request
	PeakMB            float64 `json:",omitempty"` // PSS under this load
	Others            float64 // share of the machine that others took meanwhile
}

// start is one server with one model before any load.
type start struct {
	Peer, Model string
	ReadySecs   float64            `json:",omitempty"` // from its start to its first right answer
	IdleMB      float64            `json:",omitempty"` // PSS
	Differs     map[string]float64 // by protocol: largest difference from TensorFlow's answer over the largest number
	Failed      map[string]string  `json:",omitempty"` // protocols that do not work, and why
	Error       string             `json:",omitempty"` // why there are no figures at all
	Settings    string             `json:",omitempty"`
}

// point is one of the growth pictures'.
type point struct {
	Series        string
	X             float64
	Micros        float64 // processor time of the server per request
	P50, Rate, MB float64 `json:",omitempty"`
	Note          string  `json:",omitempty"`
}

// entry is one line: one of the pointers is set.
type entry struct {
	Key     string
	Time    time.Time
	Machine *machine        `json:",omitempty"`
	Start   *start          `json:",omitempty"`
	Cell    *cell           `json:",omitempty"`
	Row     *measure.Ratios `json:",omitempty"`
	Choice  json.RawMessage `json:",omitempty"` // of settings, by measuring
	Point   *point          `json:",omitempty"`
	End     bool            `json:",omitempty"`
}

// store is the file of a run.
type store struct {
	f       *os.File
	entries []entry
	byKey   map[string]int
}

// openStore goes on with the run in the file when it is unfinished and of the same machine and settings, else begins a new one.
func openStore(path string, now machine, fresh bool) (*store, error) {
	s := &store{byKey: map[string]int{}}
	old, err := readEntries(path)
	if err != nil {
		return nil, err
	}
	if !fresh && len(old) > 0 && old[0].Machine != nil && *old[0].Machine == now && !old[len(old)-1].End {
		fmt.Printf("going on with the run of %s: %d measurements are there (-fresh begins anew)\n", old[0].Time.Format(time.DateTime), len(old)-1)
	} else {
		old = nil
	}
	if s.f, err = os.Create(path); err != nil {
		return nil, err
	}
	for _, e := range old { // written anew: the last line may have been cut off
		if err := s.write(e); err != nil {
			return nil, err
		}
	}
	if len(old) == 0 {
		return s, s.add(entry{Key: "machine", Machine: &now})
	}
	return s, nil
}

func readEntries(path string) (all []entry, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			break // cut off
		}
		all = append(all, e)
	}
	return all, lines.Err()
}

func (s *store) write(e entry) error {
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	s.byKey[e.Key] = len(s.entries)
	s.entries = append(s.entries, e)
	_, err = s.f.Write(append(text, '\n'))
	return err
}

func (s *store) add(e entry) error {
	e.Time = time.Now().UTC().Truncate(time.Second)
	return s.write(e)
}

// get is the latest entry of a key.
func (s *store) get(key string) (entry, bool) {
	i, ok := s.byKey[key]
	if !ok {
		return entry{}, false
	}
	return s.entries[i], true
}

func (s *store) finish() error { return s.add(entry{Key: "end", End: true}) }

func (s *store) close() { _ = s.f.Close() }
