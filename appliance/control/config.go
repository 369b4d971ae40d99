// config.go: the configuration in force, over the door.
package control

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// Config is the configuration in force.
type Config struct {
	Files []string  `json:"files"` // that it was read from, in their order
	Text  string    `json:"text"`  // YAML, with where each value came from in comments
	Keys  []Setting `json:"keys"`
}

// Setting is one key of it.
type Setting struct {
	Key   string `json:"key"`
	Value string `json:"value"` // as in YAML
	From  string `json:"from"`
}

func handleConfig(mux *http.ServeMux, config func() Config) {
	mux.HandleFunc("GET /control/config", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, config()) })
}

// Config asks for the configuration in force. It needs the unix socket.
func (c *Client) Config(ctx context.Context) (*Config, error) {
	code, body, err := c.Do(ctx, http.MethodGet, "/control/config", nil)
	if err != nil {
		return nil, err
	}
	if code != http.StatusOK {
		return nil, c.elsewhere("the configuration", code)
	}
	v := new(Config)
	if err := json.Unmarshal(body, v); err != nil {
		return nil, fmt.Errorf("configuration from %s: %w; is it an inferd?", c.what, err)
	}
	return v, nil
}
