// manual.go: the hidden verb that writes the manual pages and the completions, out of the same tables as the verbs' own help and the
// configuration's reference. The packages are made with it.
package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/inferd/inferd/appliance/config"
)

func manualCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "manual DIR", Hidden: true, Args: exactly(1, "one directory"),
		Short: "Write the manual pages and the completions into a directory",
		RunE: func(cmd *cobra.Command, args []string) error {
			files, err := manual(cmd.Root())
			if err != nil {
				return err
			}
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			for name, data := range files {
				if err := os.WriteFile(filepath.Join(args[0], name), data, 0o644); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// manual has every page and completion by its file's name.
func manual(root *cobra.Command) (map[string][]byte, error) {
	files := map[string][]byte{
		"inferd.yaml.5":    yamlPage(),
		servingName + ".1": servingPage(),
		"inferd.1":         commandPage(root),
	}
	for _, c := range described(root) {
		if c.Name() != servingName {
			files[pageName(c)+".1"] = commandPage(c)
		}
	}
	for name, write := range map[string]func(*bytes.Buffer) error{
		"inferd.bash": func(b *bytes.Buffer) error { return root.GenBashCompletionV2(b, true) },
		"_inferd":     func(b *bytes.Buffer) error { return root.GenZshCompletion(b) },
		"inferd.fish": func(b *bytes.Buffer) error { return root.GenFishCompletion(b, true) },
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			return nil, fmt.Errorf("write %s: %w", name, err)
		}
		files[name] = b.Bytes()
	}
	return files, nil
}

// described has the verbs below c that users see, and theirs.
func described(c *cobra.Command) []*cobra.Command {
	var list []*cobra.Command
	for _, sub := range visible(c) {
		list = append(append(list, sub), described(sub)...)
	}
	return list
}

func pageName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// commandPage is the page of one verb, or of inferd itself.
func commandPage(c *cobra.Command) []byte {
	r := newPage(pageName(c), "1")
	r.section("NAME")
	fmt.Fprintf(&r.b, "%s \\- %s\n", r.escape(pageName(c)), r.inline(lowerFirst(c.Short)))
	r.section("SYNOPSIS")
	synopsis := c.UseLine()
	if !c.HasParent() {
		synopsis = "inferd VERB [flags]"
	}
	r.b.WriteString("\\fB" + r.escape(synopsis) + "\\fP\n")
	r.section("DESCRIPTION")
	if c.Long != "" {
		r.text(c.Long)
	} else {
		r.text(c.Short + ".")
	}
	if subs := visible(c); len(subs) > 0 {
		r.section("VERBS")
		for _, sub := range subs {
			r.entry(strings.TrimPrefix(sub.CommandPath(), c.CommandPath()+" "), sub.Short+". See `"+page(sub)+"`(1).")
		}
	}
	flags(r, "OPTIONS", c.NonInheritedFlags())
	if c.HasParent() {
		flags(r, "OPTIONS OF EVERY VERB", c.InheritedFlags())
	}
	if c.Example != "" {
		r.section("EXAMPLES")
		r.verbatim(c.Example)
	}
	if !c.HasParent() {
		rootSections(r)
	}
	r.section("SEE ALSO")
	r.b.WriteString(strings.Join(seeAlso(r, c), ",\n") + "\n")
	return []byte(r.b.String())
}

// rootSections are about all of inferd.
func rootSections(r *roff) {
	r.section("FILES")
	def := config.Default()
	r.entry(config.DefaultFile, "The configuration; see `inferd.yaml`(5).")
	r.entry(def.ModelsDir, "The models: a directory for each, with a numeric directory for each version in it.")
	r.entry(def.StateDir, "What survives a restart: the journal, the queue, kept copies of the good versions.")
}

// visible has the verbs below c that users see and that have a page.
func visible(c *cobra.Command) []*cobra.Command {
	if c.Name() == "completion" {
		return nil // its verbs' help is cobra's, and about installing what the package installs
	}
	return slices.DeleteFunc(slices.Clone(c.Commands()), func(s *cobra.Command) bool { return s.Hidden || s.Name() == "help" })
}

func page(c *cobra.Command) string {
	if c.Name() == servingName {
		return servingName
	}
	return pageName(c)
}

func seeAlso(r *roff, c *cobra.Command) []string {
	var list []string
	if c.HasParent() {
		list = append(list, page(c.Parent()))
	}
	for _, sub := range visible(c) {
		list = append(list, page(sub))
	}
	for i, name := range list {
		list[i] = `\fB` + r.escape(name) + `\fP(1)`
	}
	return append(list, `\fBinferd.yaml\fP(5)`)
}

// flags writes a section with the flags of a set. Those that are keys of the configuration are named by that page alone.
func flags(r *roff, title string, set *pflag.FlagSet) {
	keys := map[string]bool{}
	for _, k := range config.Keys() {
		keys[k.Path] = !k.Section
	}
	var list []*pflag.Flag
	settings := false
	set.VisitAll(func(f *pflag.Flag) {
		switch {
		case f.Hidden:
		case keys[f.Name]:
			settings = true
		default:
			list = append(list, f)
		}
	})
	if len(list) == 0 && !settings {
		return
	}
	r.section(title)
	for _, f := range list {
		kind, usage := pflag.UnquoteUsage(f)
		term := "--" + f.Name
		if f.Shorthand != "" {
			term = "-" + f.Shorthand + ", " + term
		}
		if kind != "" {
			term += " " + kind
		}
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" && f.DefValue != "0" && !strings.Contains(usage, "default") {
			usage += " (default " + f.DefValue + ")"
		}
		r.entry(term, strings.TrimSuffix(usage, ".")+".")
	}
	if settings {
		r.entry("--KEY=VALUE", "Every key of `inferd.yaml`(5) outside `models` is a flag, which overrides the file: --listen.grpc=:8500, --runtime.zygote=false.")
	}
}

// yamlPage is inferd.yaml(5).
func yamlPage() []byte {
	r := newPage("inferd.yaml", "5")
	r.section("NAME")
	r.b.WriteString("inferd.yaml \\- configuration of inferd\n")
	r.section("SYNOPSIS")
	r.b.WriteString("\\fB" + r.escape(config.DefaultFile) + "\\fP\n")
	r.section("DESCRIPTION")
	r.text("inferd reads one YAML file. Every key has a default, so an empty file, or none, is a whole configuration. An unknown key is refused, with its line. " +
		"Durations are written with a unit (250ms, 30s), sizes too (512MiB). Relative paths are taken from the file's directory.\n\n" +
		"Every key outside `models` is also a flag of the same name that overrides the file. `inferd check` FILE says what is wrong without serving, " +
		"and `inferd check --effective` FILE prints every key with the value that would be in force.\n\n" +
		"`inferd reload` and systemctl reload inferd read the file again: all of it is taken over, or, where it has a fault, none. Below stands when a key counts " +
		"that has changed: at once, at the next load of a version, or at the next start of inferd.")
	effects := map[config.Effect]string{config.Now: "Counts at once.", config.NextLoad: "Counts at the next load.", config.Restart: "Counts at the next start."}
	r.section("KEYS")
	for _, k := range config.Keys() {
		switch {
		case k.Section && !strings.Contains(k.Path, "."):
			r.subsection(k.Path)
			r.text(k.Doc)
			if k.Path == "models" {
				r.entry("models[].KEY", "Every key of `defaults`, with the model's own value.")
			}
		case k.Section:
			r.entry(k.Path, k.Doc)
		default:
			if !strings.Contains(k.Path, ".") {
				r.subsection(k.Path)
			}
			about := "Kind: " + k.Kind + "."
			if k.Default != "" {
				about += " Default: `" + k.Default + "`."
			}
			r.entry(k.Path, k.Doc+"\n\n"+about+" "+effects[k.Effect()])
		}
	}
	r.section("FILES")
	r.entry(config.DefaultFile, "What the packaged service reads. It has no key in it when it comes; an upgrade leaves it alone.")
	r.entry("/usr/share/doc/inferd/examples/inferd.yaml", "Every key at its default, to copy from.")
	r.section("SEE ALSO")
	r.b.WriteString("\\fBinferd\\fP(1),\n\\fBinferd\\-check\\fP(1),\n\\fBinferd\\-reload\\fP(1)\n")
	return []byte(r.b.String())
}

// servingPage is tensorflow_model_server(1).
func servingPage() []byte {
	r := newPage(servingName, "1")
	r.section("NAME")
	r.b.WriteString("tensorflow_model_server \\- inferd with TensorFlow Serving\\(aqs own command line\n")
	r.section("SYNOPSIS")
	r.b.WriteString("\\fBtensorflow_model_server\\fP [\\fB\\-\\-FLAG=VALUE\\fP ...]\n")
	r.section("DESCRIPTION")
	r.text("tensorflow_model_server is a link to inferd. Started under this name, or as `inferd tensorflow_model_server`, it takes the flags of TensorFlow Serving. " +
		"The flags of `inferd-serve`(1) may be mixed in and win. The ports are bound on every interface without authentication, as TensorFlow Serving does; " +
		"--listen.grpc=127.0.0.1:8500 --listen.http=127.0.0.1:8501 closes them to other machines.")
	r.section("OPTIONS")
	for _, f := range config.ServingFlags() {
		r.entry("--"+f.Name+" ("+f.Kind+")", f.Doc)
	}
	r.section("SEE ALSO")
	r.b.WriteString("\\fBinferd\\fP(1),\n\\fBinferd\\-serve\\fP(1),\n\\fBinferd.yaml\\fP(5)\n")
	return []byte(r.b.String())
}

func lowerFirst(s string) string {
	if len(s) > 1 && s[1] >= 'a' && s[1] <= 'z' {
		return strings.ToLower(s[:1]) + s[1:]
	}
	return s
}
