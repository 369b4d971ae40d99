// reload.go: what is different in a configuration that is read again, and what of it a running inferd takes over.
package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// Effect says when a changed setting counts.
type Effect string

// The effects.
const (
	Now      Effect = "now"
	NextLoad Effect = "next load" // for versions that are loaded from then on; what serves goes on as it was loaded
	Restart  Effect = "restart"   // not before inferd is started again
)

// Change is one setting that is different.
type Change struct {
	Key      string // as in the file; a listed model's keys are below models[NAME]
	From, To string // as in YAML, "none" for a model that is not listed
	Effect   Effect
}

// String is the change on one line.
func (c Change) String() string { return fmt.Sprintf("%s: %s -> %s", c.Key, c.From, c.To) }

// reloadable are the keys, with all that is below them, that a running inferd takes over. Every other one needs a restart. The options
// of a model count from the next load on, but for those in atOnce.
var reloadable = map[string]Effect{
	"defaults":                NextLoad,
	"models":                  NextLoad,
	"admission":               Now,
	"updater.poll_interval":   Now,
	"updater.settle_time":     Now,
	"updater.empty_grace":     Now,
	"updater.config_poll":     Now,
	"runtime.canary_interval": Now,
	"memory":                  Now,
	"state.disk_floor":        Now,
	"queue.max_age":           Now,
	"queue.retention":         Now,
	"queue.dead_retention":    Now,
	"queue.max_attempts":      Now,
	"queue.max_deaths":        Now,
	"queue.backoff":           Now,
	"queue.max_backoff":       Now,
	"queue.concurrency":       Now,
	"log.level":               Now,
	"drain_timeout":           Now,
	"grpc.reload_config":      Now,
	"oip.repository":          Now,
	"grpc.reload_any_label":   Now,
}

// atOnce are the keys of a model, or of defaults, that say what is served and not how.
var atOnce = []string{"base_path", "optional", "version_labels", "version_policy", "retain", "keep_last_good", "queue", "request_log"}

// effectOf is when a change of the key counts.
func effectOf(key string) Effect {
	effect := Restart
	for k := key; k != ""; k = parent(k) {
		if e, ok := reloadable[k]; ok {
			effect = e
			break
		}
	}
	last := func(k string) string { return k[strings.LastIndexByte(k, '.')+1:] }
	if effect == NextLoad && (slices.Contains(atOnce, last(key)) || slices.Contains([]string{"queue", "request_log"}, last(parent(key)))) {
		return Now
	}
	return effect
}

// Reload is what an inferd that runs with c goes on with when next has been read: next, but for the settings that need a restart, which
// are c's. The changes are what is different between c and next, in the order of the file.
func (c *Config) Reload(next *Config) (*Config, []Change) {
	d := &differ{}
	d.section("", reflect.ValueOf(c).Elem(), reflect.ValueOf(next).Elem())
	merged := *next
	merged.Models = slices.Clone(next.Models)
	for i := range merged.Models {
		m := &merged.Models[i]
		key := fmt.Sprintf("models[%d].base_path", i)
		if s := next.source; s != nil && s.lines[key] == 0 && s.flags[key] == "" && c.ModelsDir != "" && m.BasePath == filepath.Join(next.ModelsDir, m.Name) {
			m.BasePath = filepath.Join(c.ModelsDir, m.Name) // it was not written, and models_dir stays
		}
	}
	root, old := reflect.ValueOf(&merged).Elem(), reflect.ValueOf(c).Elem()
	for _, ch := range d.changes {
		if ch.Effect == Restart {
			at(root, ch.Key).Set(at(old, ch.Key))
			merged.keep(ch.Key)
		}
	}
	d.models(c.Models, merged.Models)
	return &merged, d.changes
}

// differ collects changes.
type differ struct {
	changes []Change
	// byDefault are the options that the defaults section changes: where a listed model follows, nothing is said again.
	byDefault map[string]Change
}

// section compares two structs of the same type, but for the lists of models.
func (d *differ) section(path string, a, b reflect.Value) {
	other := fieldsOf(b)
	for i, f := range fieldsOf(a) {
		key := join(path, f.key)
		switch {
		case key == "models":
		case kindOf(f.value) == "":
			d.section(key, f.value, other[i].value)
		default:
			if ch, differs := compare(key, f.value, other[i].value); differs {
				d.changes = append(d.changes, ch)
			}
		}
	}
}

// compare compares by what is written: an empty list and none are the same.
func compare(key string, a, b reflect.Value) (Change, bool) {
	if reflect.DeepEqual(a.Interface(), b.Interface()) {
		return Change{}, false
	}
	from, to := inline(a), inline(b)
	return Change{Key: key, From: clip(from), To: clip(to), Effect: effectOf(key)}, from != to
}

// clip keeps a line readable when a value is not.
func clip(s string) string {
	if len(s) > 200 {
		return strings.ToValidUTF8(s[:200], "") + "..."
	}
	return s
}

// models compares the lists by name, and lets b have a's very value where nothing differs.
func (d *differ) models(a, b []Model) {
	d.byDefault = make(map[string]Change)
	for _, ch := range d.changes {
		if key, ok := strings.CutPrefix(ch.Key, "defaults."); ok {
			d.byDefault[key] = ch
		}
	}
	before := make(map[string]*Model, len(a))
	for i := range a {
		before[a[i].Name] = &a[i]
	}
	for i := range b {
		m := &b[i]
		path := "models[" + m.Name + "]"
		old := before[m.Name]
		if old == nil {
			d.changes = append(d.changes, Change{Key: path, From: "none", To: m.BasePath, Effect: Now})
			continue
		}
		delete(before, m.Name)
		one := &differ{}
		one.section(path, reflect.ValueOf(old).Elem(), reflect.ValueOf(m).Elem())
		if len(one.changes) == 0 {
			*m = *old
		}
		for _, ch := range one.changes {
			if same, ok := d.byDefault[ch.Key[len(path)+1:]]; !ok || same.From != ch.From || same.To != ch.To {
				d.changes = append(d.changes, ch)
			}
		}
	}
	for i := range a {
		if m := &a[i]; before[m.Name] != nil {
			d.changes = append(d.changes, Change{Key: "models[" + m.Name + "]", From: m.BasePath, To: "none", Effect: Now})
		}
	}
}

// reloadReference is the reference's chapter about reading a configuration again.
func reloadReference() string {
	var keys, models []string
	for _, k := range Keys() {
		if !k.Section && !k.Model && !strings.HasPrefix(k.Path, "defaults.") && effectOf(k.Path) == Now {
			keys = append(keys, "`"+k.Path+"`")
		}
	}
	for _, k := range atOnce {
		models = append(models, "`"+k+"`")
	}
	return "\n## Reading it again\n\n" +
		"SIGHUP, `systemctl reload` and `inferd reload` read the file and `conf.d` again, with the flags that inferd was started with: all of it is taken over, or, where\n" +
		"they have a fault, none. `inferd reload` prints every difference; the log has them too. What is read is\n\n" +
		"- taken over at once: the list of models, " + strings.Join(models, ", ") + " of a model or of `defaults`, and " + strings.Join(keys, ", ") + ";\n" +
		"- taken over for versions that are loaded from then on: every other key of a model and of `defaults`. A version that serves goes on as it was loaded;\n" +
		"- named, and left as it is until inferd is started again: every other key.\n"
}

// Digest names the contents of File and its fragments that the configuration was read from, "" when it was read from none.
func (c *Config) Digest() string {
	if c.source == nil {
		return ""
	}
	return c.source.sum
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// File is the file that the configuration was read from, TensorFlow Serving's model_config_file with its command line; "" when there is none.
func (c *Config) File() string {
	if c.source == nil {
		return ""
	}
	return c.source.file
}
