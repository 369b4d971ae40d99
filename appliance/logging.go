// logging.go: the log's form, and the one list of keys that its lines use.
package appliance

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/systemd"
)

// logKeys are the keys of attributes in every package. A key that is not here is added here first, so that one idea has one key in
// every line; a test reads the code and holds it to the list.
var logKeys = []string{
	"component", // which part speaks: updater, worker, rest, ...
	"model",
	"version", // number of a model's version
	"signature",
	"err",
	"took",
	"bytes",
	"requests", // how many
	"address",
	"path",
	"name",    // of a flag, a field or a file
	"reason",  // why something is as it is
	"instead", // what is done in place of what failed
	"code",
	"pid",     // of a worker
	"device",  // the number of a GPU
	"attempt", // its number
	"wait",    // until the next one
	"rows",
	"labels",
	"policy",
	"poll", // how often it is looked
	"from", "to",
	"by",                      // who asked for it
	"changes",                 // in the configuration, how many
	"id",                      // of an error that a client was told
	"grpc", "http", "control", // the addresses of the doors
	"source", "text", // of a line that TensorFlow wrote
	"seq",    // of a job
	"writes", // that shared a commit
	"stack",
}

// NewLogger writes lines of the configured form and level to w; level, when not nil, is set to that and can be changed later. Where w is the
// journal's stream, text becomes records of the journal, with priorities and fields; JSON stays as it is.
func NewLogger(w io.Writer, o config.Log, level *slog.LevelVar) (*slog.Logger, error) {
	if level == nil {
		level = new(slog.LevelVar)
	}
	return newLogger(w, o, level, journal(w, os.Getenv("JOURNAL_STREAM")), systemd.JournalSocket)
}

func newLogger(w io.Writer, o config.Log, level *slog.LevelVar, journal bool, socket string) (*slog.Logger, error) {
	options := &slog.HandlerOptions{Level: level}
	if err := level.UnmarshalText([]byte(o.Level)); err != nil {
		return nil, fmt.Errorf("log.level: %w", err)
	}
	switch o.Format {
	case config.FormatJSON:
		return slog.New(slog.NewJSONHandler(w, options)), nil
	case config.FormatText:
		if journal {
			if h, err := journalTo(socket, w, level); err == nil {
				return slog.New(h), nil
			}
			options.ReplaceAttr = dropTime // lines on the stream, for the journal has times of its own
		}
		return slog.New(slog.NewTextHandler(w, options)), nil
	default:
		return nil, fmt.Errorf("log.format: %q is neither %s nor %s", o.Format, config.FormatText, config.FormatJSON)
	}
}

func dropTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// journal reports whether w is the stream that systemd connected to the journal. JOURNAL_STREAM is inherited by programs whose output
// was sent elsewhere since, so it names the device and inode to compare.
func journal(w io.Writer, stream string) bool {
	f, ok := w.(interface{ Fd() uintptr })
	device, inode, found := strings.Cut(stream, ":")
	if !ok || !found {
		return false
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return false
	}
	return device == strconv.FormatUint(uint64(st.Dev), 10) && inode == strconv.FormatUint(st.Ino, 10)
}
