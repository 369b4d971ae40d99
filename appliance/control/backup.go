// backup.go: a backup of the running appliance, over the door.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"
)

// backupStall is how long whoever takes a backup may take none of it.
const backupStall = 2 * time.Minute

// BackupSource writes a backup of what it has already taken hold of. Either method ends it.
type BackupSource interface {
	WriteBackup(ctx context.Context, w io.Writer) error
	Close()
}

func handleBackup(mux *http.ServeMux, take func(ctx context.Context, versions bool) (BackupSource, error)) {
	mux.HandleFunc("POST /control/backup", func(w http.ResponseWriter, r *http.Request) {
		versions, _ := strconv.ParseBool(r.URL.Query().Get("versions"))
		source, err := take(r.Context(), versions)
		if err != nil {
			answer(w, http.StatusInternalServerError, Done{Error: err.Error()})
			return
		}
		w.Header().Set("Content-Type", "application/zstd")
		if err := source.WriteBackup(r.Context(), &patient{w, http.NewResponseController(w)}); err != nil {
			panic(http.ErrAbortHandler) // the client sees that it was cut off
		}
	})
}

// patient gives each write a time of its own.
type patient struct {
	w    io.Writer
	conn *http.ResponseController
}

func (p *patient) Write(b []byte) (int, error) {
	_ = p.conn.SetWriteDeadline(time.Now().Add(backupStall)) // where that cannot be, the request's context ends it
	return p.w.Write(b)
}

// Backup has a running inferd write a backup to w. It needs the unix socket.
func (c *Client) Backup(ctx context.Context, versions bool, w io.Writer) error {
	if c.err != nil {
		return c.err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/control/backup?versions="+strconv.FormatBool(versions), nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.explain(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		var d Done
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		if json.Unmarshal(body, &d) == nil && d.Error != "" {
			return errors.New(d.Error)
		}
		return c.elsewhere("a backup", resp.StatusCode)
	}
	_, err = io.Copy(w, resp.Body)
	return err
}
