// sandbox.go: what the worker processes are confined to.
package config

// Sandbox says whether models are confined.
type Sandbox string

// The kinds of sandbox.
const (
	SandboxAuto Sandbox = "auto" // as far as the kernel can
	SandboxOff  Sandbox = "off"
)

func (c *checker) sandbox(r *Runtime) {
	c.oneOf("runtime.sandbox", string(r.Sandbox), string(SandboxAuto), string(SandboxOff))
	switch {
	case !r.RequireSandbox:
	case r.Sandbox == SandboxOff:
		c.addf("runtime.require_sandbox", "models are to be confined, and runtime.sandbox is off; write one of the two")
	case r.Isolation == IsolationNone:
		c.addf("runtime.require_sandbox", "models are to be confined, and with runtime.isolation none they run in inferd's own process; write version, device or auto")
	}
}

// Secrets are the files that the configuration was read from or names, and the folders of inferd's own: what no model's folder may hold.
func (c *Config) Secrets() (paths []string) {
	files := []string{c.StateDir, c.Access.TokensFile, c.Listen.TLS.Cert, c.Listen.TLS.Key, c.Listen.TLS.ClientCA, c.Listen.TLS.SSLConfigFile}
	if c.source != nil {
		files = append(files, c.source.file)
	}
	for _, f := range files {
		if f != "" {
			paths = append(paths, f)
		}
	}
	return paths
}
