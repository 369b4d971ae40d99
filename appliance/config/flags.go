// flags.go: every scalar key outside the list of models is a flag of the same name.
package config

import (
	"flag"
	"fmt"
	"iter"
	"reflect"
	"strconv"
	"strings"
	"sync"
)

// Flags holds what the command line sets: key path to text. The zero value sets nothing. A nil *Flags sets nothing either.
type Flags struct {
	values map[string]string
	order  []string
}

// All has one flag per key, named like the key: --listen.grpc=:8500, --runtime.zygote=false. What is set on them lands in f, and is read
// by [Load], which also says what is wrong with it. Lists are written with commas. They fit both the flag package and cobra's, where a
// bool wants NoOptDefVal "true".
func (f *Flags) All() iter.Seq[*FlagValue] {
	return func(yield func(*FlagValue) bool) {
		for _, k := range flagKeys() {
			if !yield(&FlagValue{Key: k, flags: f}) {
				return
			}
		}
	}
}

// Register adds All to fs; cobra takes them over by AddGoFlagSet.
func (f *Flags) Register(fs *flag.FlagSet) {
	for v := range f.All() {
		fs.Var(v, v.Key.Path, v.Key.Doc)
	}
}

// Set has the same effect as the flag --key=value. It fails when there is no such key.
func (f *Flags) Set(key, value string) error {
	if !isFlag(key) {
		return fmt.Errorf("unknown key %q", shorten(key))
	}
	f.set(key, value)
	return nil
}

func (f *Flags) set(key, value string) {
	if f.values == nil {
		f.values = make(map[string]string)
	}
	if _, again := f.values[key]; !again {
		f.order = append(f.order, key)
	}
	f.values[key] = value
}

// apply writes the flags into c, and for each key into from which flag it was.
func (f *Flags) apply(c *Config, from map[string]string) (faults Faults) {
	if f == nil {
		return nil
	}
	root := reflect.ValueOf(c).Elem()
	for _, key := range f.order {
		v := at(root, key)
		from[key] = key
		if v.Kind() != reflect.Slice {
			if err := setScalar(v, f.values[key]); err != nil {
				faults = append(faults, Fault{Flag: key, Key: key, Msg: err.Error()})
			}
			continue
		}
		list := reflect.MakeSlice(v.Type(), 0, 0)
		for part := range strings.SplitSeq(f.values[key], ",") {
			if f.values[key] == "" {
				break
			}
			e := reflect.New(v.Type().Elem()).Elem()
			if err := setScalar(e, strings.TrimSpace(part)); err != nil {
				faults = append(faults, Fault{Flag: key, Key: key, Msg: err.Error()})
			}
			list = reflect.Append(list, e)
		}
		v.Set(list)
	}
	return faults
}

// at is the value at a key path that is known to exist.
func at(v reflect.Value, path string) reflect.Value {
	for key := range strings.SplitSeq(path, ".") {
		for _, f := range fieldsOf(v) {
			if f.key == key {
				v = f.value
				break
			}
		}
	}
	return v
}

// flagKeys are the keys that a flag can set: scalars and lists of them, outside the list of models.
var flagKeys = sync.OnceValue(func() (keys []Key) {
	for _, k := range Keys() {
		if !k.Section && !k.Model && k.Kind != "version policy" && k.Kind != "list of keys" {
			keys = append(keys, k)
		}
	}
	return keys
})

func isFlag(key string) bool {
	for _, k := range flagKeys() {
		if k.Path == key {
			return true
		}
	}
	return false
}

// FlagValue is one flag: a flag.Value, and cobra's pflag.Value.
type FlagValue struct {
	Key   Key // Key.Path is the flag's name, Key.Doc its usage
	flags *Flags
}

// String is what was set, else the default.
func (v *FlagValue) String() string {
	if v.flags == nil {
		return "" // the flag package asks a zero value
	}
	if s, ok := v.flags.values[v.Key.Path]; ok {
		return s
	}
	if v.Key.Kind == "list" {
		return strings.ReplaceAll(strings.Trim(v.Key.Default, "[]"), ", ", ",")
	}
	if s, err := strconv.Unquote(v.Key.Default); err == nil {
		return s
	}
	return v.Key.Default
}

// Set keeps s for [Load], and never fails.
func (v *FlagValue) Set(s string) error { v.flags.set(v.Key.Path, s); return nil }

// IsBoolFlag lets --runtime.zygote stand for --runtime.zygote=true.
func (v *FlagValue) IsBoolFlag() bool { return v.Key.Kind == "bool" }

// Type is what help prints for the value.
func (v *FlagValue) Type() string { return v.Key.Kind }
