// audit_test.go: the journal's checker finds what it is for.
package updater

import (
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/storage"
)

func TestCheckJournal(t *testing.T) {
	db, err := storage.Open(t.TempDir()+"/state.db", storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	j := db.State()
	whole := good{Number: 3, Dir: "/m/3", Print: "p", Tree: tree{Sum: "s", Count: 1}}
	event := func(what string, n int64) []byte { return encode(Event{What: what, Version: n, At: time.Now()}) }
	lived := [][]byte{event("trying", 3), event("published", 3), event("good", 3)}
	for _, test := range []struct {
		fault  string // empty: none
		record chronicle
		events [][]byte
	}{
		{"", chronicle{Live: []int64{3}, Good: []good{whole}}, lived},
		{"", chronicle{Trying: &trying{Number: 3, Print: "p", Count: 1}}, lived},
		{"live 3 is there twice", chronicle{Live: []int64{3, 3}}, lived},
		{"version 4 counts as live and was never published", chronicle{Live: []int64{4}}, lived},
		{"not known what its files are", chronicle{Good: []good{{Number: 3, Dir: "/m/3", Print: "p"}}}, lived},
		{"that was never noted", chronicle{Good: []good{whole}}, nil},
		{"refused without a reason", chronicle{Bad: []bad{{Number: 2, Print: "p"}}}, nil},
		{"load of version 2 is under way", chronicle{Trying: &trying{Number: 2, Print: "p", Count: 1}}, lived},
		{"rollback from version 3 to version 5", chronicle{Back: &back{From: 3, To: 5}}, lived},
		{"pin to version 3 that nobody", chronicle{Pin: &pin{Number: 3}}, lived},
		{"an event cannot be read", chronicle{}, [][]byte{[]byte("{")}},
	} {
		name := "m" + strings.ReplaceAll(test.fault, " ", "")
		if err := j.Record(name, encode(test.record), test.events...); err != nil {
			t.Fatal(err)
		}
		err := CheckJournal(j)
		if test.fault == "" && err != nil || test.fault != "" && (err == nil || !strings.Contains(err.Error(), test.fault)) {
			t.Errorf("want %q: %v", test.fault, err)
		}
		if err := j.Record(name, []byte{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Record("broken", []byte("{")); err != nil {
		t.Fatal(err)
	}
	if err := CheckJournal(j); err == nil || !strings.Contains(err.Error(), "model broken: its record cannot be read") {
		t.Error(err)
	}
}
