// inferd.go: the package inferd: the binary, its units, its configuration, its manual.
package main

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// inferdScripts are its maintainer scripts, in packaging/deb.
const inferdScripts = "packaging/deb"

func (b *build) inferd() ([]*pkg, error) {
	needs, err := elfNeeds(b.binary, b.arch)
	if err != nil {
		return nil, err
	}
	if err := needs.runsOn(oldestGlibc); err != nil {
		return nil, err
	}
	p := b.newPackage("inferd", b.version, b.time)
	p.info.Section = "net"
	p.describe("appliance that serves TensorFlow models from a directory",
		"inferd serves the SavedModels in a directory over TensorFlow Serving's REST and gRPC and over WebSockets, follows what changes there, "+
			"and keeps the last good version when a new one is bad. Every model runs in a process of its own. Accepted jobs are kept on disk until they are answered.",
		"Removing the package keeps the models, the queue and the configuration. Purging it removes /etc/inferd and all of /var/lib/inferd, the models in it too.")
	p.info.Depends = append(needs.depends(), "init-system-helpers (>= 1.52)")
	// The second alternative is what keeps older runtimes from apt's autoremove: every one of them provides it.
	p.info.Recommends = []string{"inferd-runtime-cpu | inferd-runtime"}
	p.info.Suggests = []string{"inferd-runtime-gpu"}
	// It has the same /usr/bin/tensorflow_model_server.
	p.info.Conflicts = []string{"tensorflow-model-server", "tensorflow-model-server-universal"}
	p.info.Replaces = p.info.Conflicts
	p.info.Deb.Triggers.InterestNoAwait = []string{runtimeDir}
	p.info.Scripts.PreInstall = b.path(inferdScripts, "preinst")
	p.info.Scripts.PostInstall = b.path(inferdScripts, "postinst")
	p.info.Scripts.PreRemove = b.path(inferdScripts, "prerm")
	p.info.Scripts.PostRemove = b.path(inferdScripts, "postrm")

	p.file(b.binary, "/usr/bin/inferd", 0o755)
	p.link("inferd", "/usr/bin/tensorflow_model_server")
	if err := b.units(p); err != nil {
		return nil, err
	}
	p.file(b.path("packaging/deb/sysusers.conf"), "/usr/lib/sysusers.d/inferd.conf", 0o644)
	p.file(b.path("packaging/deb/tmpfiles.conf"), "/usr/lib/tmpfiles.d/inferd.conf", 0o644)
	p.dir("/etc/inferd")
	p.config(b.path("packaging/deb/inferd.yaml"), "/etc/inferd/inferd.yaml")
	p.config(b.path("packaging/deb/conf.d-README"), "/etc/inferd/conf.d/README")
	if err := b.manuals(p); err != nil {
		return nil, err
	}

	doc := "/usr/share/doc/inferd"
	p.file(b.path("packaging/inferd.yaml"), path.Join(doc, "examples/inferd.yaml"), 0o644)
	p.file(b.path("packaging/systemd/gpu.conf"), path.Join(doc, "examples/gpu.conf"), 0o644)
	p.packed(b.path("CHANGELOG.md"), path.Join(doc, "NEWS.md.gz"))
	p.packed(b.path("README.md"), path.Join(doc, "README.md.gz"))
	pages, err := filepath.Glob(b.path("docs/*.md"))
	if err != nil {
		return nil, err
	}
	for _, page := range pages {
		p.packed(page, path.Join(doc, "docs", filepath.Base(page)+".gz"))
	}
	p.documents(apache("inferd", "2026 The inferd authors"))
	return []*pkg{p}, nil
}

// units puts every unit of packaging/systemd, and its drop-ins that every machine has.
func (b *build) units(p *pkg) error {
	dir := b.path("packaging/systemd")
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		switch filepath.Ext(e.Name()) {
		case ".service", ".socket", ".slice":
			p.file(filepath.Join(dir, e.Name()), path.Join("/lib/systemd/system", e.Name()), 0o644)
		}
	}
	return nil
}

// manuals puts the man pages and the completions that the binary wrote about itself.
func (b *build) manuals(p *pkg) error {
	pages, err := filepath.Glob(filepath.Join(b.manual, "*.[1-8]"))
	if err != nil {
		return err
	}
	if len(pages) == 0 {
		return fmt.Errorf("%s has no man pages", b.manual)
	}
	for _, page := range pages {
		section := strings.TrimPrefix(filepath.Ext(page), ".")
		p.packed(page, "/usr/share/man/man"+section+"/"+filepath.Base(page)+".gz")
	}
	p.file(filepath.Join(b.manual, "inferd.bash"), "/usr/share/bash-completion/completions/inferd", 0o644)
	p.file(filepath.Join(b.manual, "_inferd"), "/usr/share/zsh/vendor-completions/_inferd", 0o644)
	p.file(filepath.Join(b.manual, "inferd.fish"), "/usr/share/fish/vendor_completions.d/inferd.fish", 0o644)
	return nil
}

func (b *build) path(parts ...string) string {
	return filepath.Join(append([]string{b.root}, parts...)...)
}

// apache is the copyright file of what is under the Apache License.
func apache(name, holder string) string {
	return fmt.Sprintf(`Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: %s

Files: *
Copyright: %s
License: Apache-2.0

License: Apache-2.0
 On Debian systems, the full text of the Apache License, Version 2.0, is in
 /usr/share/common-licenses/Apache-2.0.
`, name, holder)
}
