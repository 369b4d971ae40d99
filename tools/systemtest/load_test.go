// load_test.go: clients of a machine, who account for everything that they were promised.
package systemtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const httpAddress = "http://127.0.0.1:8501"

// call sends a request and returns status and body. Every call has a connection of its own, for what is asked of a restart is that none is refused.
func (m *Machine) call(ctx context.Context, client *http.Client, method, path, body string, header ...string) (int, string, error) {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, httpAddress+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Close = true
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }() // all of it was read, or ReadAll says so
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// ask is one prediction by HalfPlusTwo or its like; nil when it is right.
func (m *Machine) ask(ctx context.Context, client *http.Client, model string, x, want float64) error {
	status, body, err := m.call(ctx, client, "POST", "/v1/models/"+model+":predict", fmt.Sprintf(`{"instances": [[%v]]}`, x))
	if err != nil {
		return err
	}
	var got struct{ Predictions [][]float64 }
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != http.StatusOK || len(got.Predictions) != 1 || got.Predictions[0][0] != want {
		return fmt.Errorf("asked %s for %v: status %d, %s", model, x, status, strings.TrimSpace(body))
	}
	return nil
}

// answers waits until the model does.
func (m *Machine) answers(t *testing.T, model string, x, want float64) {
	t.Helper()
	client := m.HTTP()
	eventually(t, time.Minute, func() error { return m.ask(t.Context(), client, model, x, want) })
}

// clients put load on model m, a HalfPlusTwo, until they are stopped.
type clients struct {
	t    *testing.T
	m    *Machine
	http *http.Client
	stop context.CancelFunc
	ctx  context.Context
	wg   sync.WaitGroup

	// guarded by mu
	mu       sync.Mutex
	next     int
	jobs     map[int]string // input -> id of what was acknowledged
	answered int            // predictions
	failed   []string       // predictions that were not answered rightly
	refused  int            // connections, of predictions and submits
	slowest  time.Duration  // prediction that was answered
	unready  int            // submits that were answered, but not with an acknowledgement
}

func newClients(t *testing.T, m *Machine) *clients {
	c := &clients{t: t, m: m, http: m.HTTP(), jobs: make(map[int]string), next: 1000}
	c.ctx, c.stop = context.WithCancel(t.Context())
	t.Cleanup(c.end)
	return c
}

func (c *clients) end() {
	c.stop()
	c.wg.Wait()
}

// predict starts n clients who ask one prediction after another.
func (c *clients) predict(n int) {
	for range n {
		c.wg.Go(func() {
			for x := 1.0; c.ctx.Err() == nil; x++ {
				began := time.Now()
				err := c.m.ask(c.ctx, c.http, "m", x, x/2+2)
				if c.ctx.Err() != nil {
					return
				}
				c.mu.Lock()
				if err == nil {
					c.answered++
					c.slowest = max(c.slowest, time.Since(began))
				} else {
					c.failed = append(c.failed, err.Error())
					c.refuse(err)
				}
				c.mu.Unlock()
				c.rest(5 * time.Millisecond)
			}
		})
	}
}

func (c *clients) refuse(err error) { // with mu held
	if errors.Is(err, syscall.ECONNREFUSED) {
		c.refused++
	}
}

// rest leaves the two cores of a test machine something to do beside this load.
func (c *clients) rest(d time.Duration) {
	select {
	case <-c.ctx.Done():
	case <-time.After(d):
	}
}

// submit starts n clients who submit job after job, each with one key until it is acknowledged.
func (c *clients) submit(n int) {
	for range n {
		c.wg.Go(func() {
			for c.ctx.Err() == nil {
				c.mu.Lock()
				x := c.next
				c.next++
				c.mu.Unlock()
				for c.ctx.Err() == nil {
					id, err := c.post(c.ctx, x)
					c.mu.Lock()
					if err == nil {
						c.jobs[x] = id
					} else {
						c.refuse(err)
						c.unready++
					}
					c.mu.Unlock()
					c.rest(20 * time.Millisecond)
					if err == nil {
						break
					}
				}
			}
		})
	}
}

func (c *clients) post(ctx context.Context, x int) (string, error) {
	status, body, err := c.m.call(ctx, c.http, "POST", "/v1/models/m:submit", fmt.Sprintf(`{"instances": [[%d]]}`, x), "Idempotency-Key", fmt.Sprint("key-", x))
	if err != nil {
		return "", err
	}
	var got struct{ ID string }
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != http.StatusAccepted && status != http.StatusOK || got.ID == "" {
		return "", fmt.Errorf("submit %d: status %d, %s", x, status, strings.TrimSpace(body))
	}
	return got.ID, nil
}

func (c *clients) acknowledged() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.jobs)
}

func (c *clients) predictions() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answered
}

// more waits until so many more jobs are acknowledged.
func (c *clients) more(n int) {
	c.t.Helper()
	want := c.acknowledged() + n
	eventually(c.t, time.Minute, func() error {
		if got := c.acknowledged(); got < want {
			return fmt.Errorf("%d jobs acknowledged, want %d", got, want)
		}
		return nil
	})
}

// moreAnswers waits until so many more predictions are answered.
func (c *clients) moreAnswers(n int) {
	c.t.Helper()
	want := c.predictions() + n
	eventually(c.t, time.Minute, func() error {
		if got := c.predictions(); got < want {
			return fmt.Errorf("%d predictions answered, want %d", got, want)
		}
		return nil
	})
}

// noneFailed is an error for each kind of failure among the predictions.
func (c *clients) noneFailed() {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	kinds := make(map[string]int)
	for _, f := range c.failed {
		kinds[strings.Join(strings.Fields(digits.ReplaceAllString(f, "N")), " ")]++
	}
	for kind, n := range kinds {
		c.t.Errorf("%d of %d predictions failed: %s", n, len(c.failed)+c.answered, kind)
	}
}

var digits = regexp.MustCompile(`\d+`)

// settle ends the load and holds the machine to what it has acknowledged: each job has its one result, and its key stands for it still.
func (c *clients) settle() {
	c.t.Helper()
	c.end()
	c.mu.Lock()
	jobs := maps.Clone(c.jobs)
	c.mu.Unlock()
	if len(jobs) == 0 {
		c.t.Fatal("no job was acknowledged: nothing was shown")
	}
	ids := make(map[string]int)
	for x, id := range jobs {
		if other, twice := ids[id]; twice {
			c.t.Errorf("inputs %d and %d have one job, %s", x, other, id)
		}
		ids[id] = x
		eventually(c.t, 2*time.Minute, func() error {
			status, body, err := c.m.call(c.t.Context(), c.http, "GET", "/v1/jobs/"+id+"?wait=10", "")
			if err == nil && !strings.Contains(body, `"done"`) {
				err = fmt.Errorf("job %s of input %d: status %d, %s", id, x, status, body)
			}
			return err
		})
		_, body, err := c.m.call(c.t.Context(), c.http, "GET", "/v1/jobs/"+id+"/result", "")
		var got struct{ Predictions [][]float64 }
		if err := errors.Join(err, json.Unmarshal([]byte(body), &got)); err != nil || len(got.Predictions) != 1 || got.Predictions[0][0] != float64(x)/2+2 {
			c.t.Errorf("job %s of input %d has the result %s, %v", id, x, body, err)
		}
		if again, err := c.post(c.t.Context(), x); err != nil || again != id {
			c.t.Errorf("the key of job %s stands for %q, %v", id, again, err)
		}
	}
	c.t.Logf("%d jobs acknowledged, each has its one result and its key; %d predictions answered, %d not, slowest %v; %d connections refused", len(jobs), c.answered, len(c.failed), c.slowest.Round(time.Millisecond), c.refused)
}
