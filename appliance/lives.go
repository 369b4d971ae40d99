// lives.go: how the last lives of this inferd ended, and what follows from it for this one.
package appliance

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/storage"
)

const (
	livesFile = "lives.json" // in state_dir

	shortLife = time.Minute // a life that ends by itself before that is short
	safeAfter = 3           // so many short lives in a row make the next start a safe one
	keptLives = 10
	maxLives  = 64 << 10 // bytes of the file
)

// life is one run of the daemon, as state_dir/lives.json has it. The last is this one.
type life struct {
	Started time.Time `json:"started"`
	Boot    string    `json:"boot,omitempty"`
	Version string    `json:"version"`
	PID     int       `json:"pid"`
	Safe    bool      `json:"safe,omitempty"`
	Long    bool      `json:"long,omitempty"` // it outlived shortLife

	Ended time.Time `json:"ended,omitzero"`
	How   string    `json:"how,omitempty"` // endStopped or endFailed, as it said itself; or systemd's $SERVICE_RESULT
	Text  string    `json:"text,omitempty"`
}

// How a life may end, beside systemd's results (signal, core-dump, watchdog, oom-kill, exit-code, timeout).
const (
	endStopped = "stopped" // it was told to
	endFailed  = "failed"  // it gave up with an error
	endMemory  = "oom-kill"
)

// short reports a life that ended at once and was not told to. One that the machine's end has ended says nothing about inferd.
func (l *life) short(boot string) bool {
	return !l.Long && l.How != endStopped && l.Boot == boot
}

// text says how it ended.
func (l *life) text(boot string) string {
	after := ""
	if !l.Ended.IsZero() {
		after = fmt.Sprintf(" after %s", max(l.Ended.Sub(l.Started), 0).Round(time.Second))
	}
	switch {
	case l.How == endStopped:
		return "it was stopped" + after
	case l.How == endFailed:
		return "it gave up" + after + ": " + l.Text
	case l.How == "watchdog":
		return "it did not answer the watchdog and was killed" + after
	case l.How == endMemory:
		return "the kernel killed it for memory" + after
	case l.How != "":
		return fmt.Sprintf("it ended by %s%s (%s)", l.How, after, cmp.Or(l.Text, "no status"))
	case l.Boot != boot:
		return "the machine lost power or was restarted while it ran"
	}
	return "it was killed, or crashed"
}

// lives is the file. A file that cannot be read or written is said once and stops nothing.
type lives struct {
	path string
	log  *slog.Logger
	list []life
	off  bool // it cannot be written
}

func openLives(cfg *config.Config, log *slog.Logger) *lives {
	l := &lives{path: filepath.Join(cfg.StateDir, livesFile), log: log}
	text, err := readSmall(l.path, maxLives)
	if err == nil {
		err = json.Unmarshal(text, &l.list)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.list = nil
		log.Warn("how inferd ended before is not known", "path", l.path, "err", err)
	}
	return l
}

// readSmall reads a file of at most so many bytes.
func readSmall(path string, most int64) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.Size() > most {
		return nil, fmt.Errorf("%s has %d bytes, and at most %d are read", path, st.Size(), most)
	}
	return os.ReadFile(path)
}

// begin notes a new life. last says how the one before ended, empty where there was none; shorts is how many short ones there were in a row.
func (l *lives) begin(version string) (last string, shorts int) {
	boot := storage.BootID()
	if n := len(l.list); n > 0 {
		last = l.list[n-1].text(boot)
	}
	shorts = l.shorts()
	if n := len(l.list); n >= keptLives {
		l.list = l.list[n-keptLives+1:]
	}
	l.list = append(l.list, life{Started: time.Now(), Boot: boot, Version: version, PID: os.Getpid(), Safe: shorts >= safeAfter})
	l.write()
	return last, shorts
}

// shorts is how many short lives there were in a row.
func (l *lives) shorts() (n int) {
	boot := storage.BootID()
	for i := len(l.list) - 1; i >= 0 && l.list[i].short(boot); i-- {
		n++
	}
	return n
}

// change notes something about this life.
func (l *lives) change(f func(*life)) {
	if len(l.list) > 0 {
		f(&l.list[len(l.list)-1])
		l.write()
	}
}

// write replaces the file in one step. What it says survives a power cut or is the version before.
func (l *lives) write() {
	if err := l.store(); err != nil && !l.off {
		l.off = true
		l.log.Warn("how inferd ends cannot be noted; a safe start is not possible without it", "path", l.path, "err", err)
	}
}

func (l *lives) store() error {
	text, err := json.MarshalIndent(l.list, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(l.path), 0o750); err != nil {
		return err
	}
	return storage.ReplaceFile(l.path, append(text, '\n'), 0o640)
}

// NoteEnd writes down how systemd saw the last life end: result is $SERVICE_RESULT, status $EXIT_CODE and $EXIT_STATUS. It is for
// ExecStopPost=, after the process has ended. What the process said itself stays.
func NoteEnd(cfg *config.Config, result, status string, log *slog.Logger) {
	l := openLives(cfg, log)
	if result == "signal" && status == "killed KILL" && oomKills(os.DirFS("/")) > 0 {
		result = endMemory // systemd says so only where it stops the whole unit for it
	}
	l.change(func(last *life) {
		if last.How == "" && result != "success" {
			last.How, last.Text = result, status
		}
		if last.Ended.IsZero() {
			last.Ended = time.Now()
		}
	})
}

// LongestPause is the most that Pause gives: less than TimeoutStartSec=.
const LongestPause = time.Minute

// Pause is how long a start waits after so many in a row that came to nothing: systemd would try at the same pace for ever. After the first it
// is up again, or refused again, at once.
func Pause(failures int) time.Duration {
	if failures < 2 {
		return 0
	}
	return min(time.Second<<min(failures-2, 6), LongestPause)
}
