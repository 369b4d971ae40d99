// journal.go: records for the journal, by its native protocol.
package systemd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// JournalSocket is where journald takes records.
const JournalSocket = "/run/systemd/journal/socket"

// Priorities of records, as syslog numbers them.
const (
	PriorityError   = 3
	PriorityWarning = 4
	PriorityInfo    = 6
	PriorityDebug   = 7
)

// Limits of one record. What is over them is cut or left out, and the record says so in TRUNCATED.
const (
	MaxFields     = 64
	MaxFieldName  = 64
	MaxFieldBytes = 64 << 10
)

// journalPatience is how long a record waits for a journal that takes none. While it goes on taking none, the next ones do not wait at all.
const journalPatience = 200 * time.Millisecond

// ErrJournalFull is of a record that the journal did not take in time. It is lost; the next one that is taken says how many were.
var ErrJournalFull = errors.New("the journal takes no records")

// Field is one field of a record. A name that the journal would refuse is mended: letters become capitals, what it does not know becomes
// an underscore.
type Field struct{ Name, Value string }

// Journal sends records to journald. It may be used from many goroutines.
type Journal struct {
	conn *net.UnixConn
	to   *net.UnixAddr

	mu   sync.Mutex
	full bool   // guarded by mu: the last record was not taken
	lost uint64 // guarded by mu: records since one was taken
}

// DialJournal opens a journal at a socket's path. An error means that nothing takes records there.
func DialJournal(path string) (*Journal, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	// Not connected: journald may be replaced while this process runs, and binds the path anew.
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	return &Journal{conn: conn, to: &net.UnixAddr{Name: path, Net: "unixgram"}}, nil
}

// Close ends the journal. Records are in it or not by then.
func (j *Journal) Close() error { return j.conn.Close() }

// Send hands one record over. It waits a fifth of a second at most for a journal that is busy, and not at all while that lasts: a log line never
// holds up who writes it. With another error than ErrJournalFull the caller can still say it elsewhere.
func (j *Journal) Send(fields []Field) error {
	j.mu.Lock()
	full, lost := j.full, j.lost
	j.mu.Unlock()
	if lost > 0 {
		fields = append(fields[:len(fields):len(fields)], Field{"LOST", fmt.Sprint(lost)})
	}
	err := j.write(encodeRecord(fields), full)
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case err == nil:
		j.full, j.lost = false, j.lost-min(lost, j.lost)
	case errors.Is(err, ErrJournalFull):
		j.full = true
		j.lost++
	}
	return err
}

func (j *Journal) write(record []byte, hurry bool) error {
	wait := journalPatience
	if hurry {
		wait = 0
	}
	err := j.send(record, nil, wait)
	if !errors.Is(err, unix.EMSGSIZE) && !errors.Is(err, unix.ENOBUFS) {
		return err
	}
	// Too large for a datagram: the record goes in a sealed file, and the datagram has its descriptor.
	fd, err := sealed(record)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	defer func() { _ = unix.Close(fd) }() // the journal has its own by then
	return j.send(nil, unix.UnixRights(fd), wait)
}

// send tries at once, then until wait is over.
func (j *Journal) send(b, oob []byte, wait time.Duration) error {
	raw, err := j.conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	to := &unix.SockaddrUnix{Name: j.to.Name}
	var sent error
	for end := time.Now().Add(wait); ; time.Sleep(5 * time.Millisecond) {
		// Not through the poller: one deadline is of the whole socket, and this wait is of one record.
		if err := raw.Control(func(fd uintptr) { sent = unix.Sendmsg(int(fd), b, oob, to, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL) }); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
		switch {
		case sent == nil:
			return nil
		case errors.Is(sent, unix.EINTR):
		case !errors.Is(sent, unix.EAGAIN):
			return fmt.Errorf("journal: %w", sent)
		case !time.Now().Before(end):
			return ErrJournalFull
		}
	}
}

// sealed is the descriptor of a file in memory with b in it, which nobody can change any more.
func sealed(b []byte) (int, error) {
	fd, err := unix.MemfdCreate("journal", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, fmt.Errorf("memfd_create: %w", err)
	}
	for rest := b; len(rest) > 0; {
		n, err := unix.Write(fd, rest)
		if err != nil {
			_ = unix.Close(fd) // the write's error says more
			return -1, fmt.Errorf("write a memfd: %w", err)
		}
		rest = rest[n:]
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE); err != nil {
		_ = unix.Close(fd) // likewise
		return -1, fmt.Errorf("seal a memfd: %w", err)
	}
	return fd, nil
}

// encodeRecord is the wire form: NAME=value and a newline, or, where the value has one itself, NAME, its length and it.
func encodeRecord(fields []Field) []byte {
	var b bytes.Buffer
	cut := []string(nil)
	if len(fields) > MaxFields {
		fields, cut = fields[:MaxFields], append(cut, "fields")
	}
	for _, f := range fields {
		name, value := FieldName(f.Name), f.Value
		if name == "" {
			continue
		}
		if len(value) > MaxFieldBytes {
			value, cut = cutText(value, MaxFieldBytes), append(cut, name)
		}
		appendField(&b, name, value)
	}
	if cut != nil {
		appendField(&b, "TRUNCATED", strings.Join(cut, " "))
	}
	return b.Bytes()
}

func appendField(b *bytes.Buffer, name, value string) {
	b.WriteString(name)
	if !strings.Contains(value, "\n") {
		b.WriteByte('=')
	} else {
		b.WriteByte('\n')
		b.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(value))))
	}
	b.WriteString(value)
	b.WriteByte('\n')
}

// cutText is at most n bytes of s, and no half character.
func cutText(s string, n int) string {
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// FieldName is a name as the journal takes it: capitals, digits and underscores, neither of the latter first. Empty: nothing is left of it.
func FieldName(s string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '_':
			return r
		case 'a' <= r && r <= 'z':
			return r - 'a' + 'A'
		default:
			return '_'
		}
	}, s)
	name = strings.TrimLeft(name, "_0123456789") // a leading underscore is journald's own
	return name[:min(len(name), MaxFieldName)]
}
