// token.go: the tokens that the ports ask for: add, list, remove.
package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/appliance/config"
)

// serviceGroup may read the tokens file, for inferd runs in it where it is a service.
const serviceGroup = "inferd"

func tokenCommand(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make, list and remove the tokens that the ports ask for",
		Long: "Where access.tokens_file is configured, whoever comes to a port must bring a token. The file keeps the SHA-256 sum of each token, what it is for and\n" +
			"until when; a running inferd reads it again within a second. The token itself is shown once, when it is made.",
		Args: exactly(0, "one of the verbs add, list and remove"),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var file string
	cmd.PersistentFlags().StringVar(&file, "file", "", "the tokens file (default: access.tokens_file, else "+access.DefaultFile+")")
	cmd.AddCommand(tokenAddCommand(e, &file), tokenListCommand(e, &file), tokenRemoveCommand(e, &file))
	return cmd
}

// tokensFile is the file to work on, and whether the configuration names it.
func (e *env) tokensFile(file string) (path string, configured bool, err error) {
	cfg, err := config.Load(e.configFile(), nil)
	var faults config.Faults
	if err != nil && !errors.As(err, &faults) || err != nil && file == "" {
		return "", false, err
	}
	switch {
	case file != "":
		return file, cfg != nil && cfg.Access.TokensFile == file, nil
	case cfg.Access.TokensFile != "":
		return cfg.Access.TokensFile, true, nil
	}
	return access.DefaultFile, false, nil
}

// made is what is told of a new token. Nothing else ever has its secret.
type made struct {
	Name    string     `json:"name"`
	Token   string     `json:"token"`
	Scopes  []string   `json:"scopes"`
	Models  []string   `json:"models,omitempty"`
	Expires *time.Time `json:"expires,omitempty"`
}

func tokenAddCommand(e *env, file *string) *cobra.Command {
	var scopes, models []string
	var expires string
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Make a token, and show it, once",
		Long: "The scopes: predict (and see what a model takes), submit (jobs, durable requests over a stream, and their results), metrics (the metrics page and\n" +
			"/v1/admission), admin (all of that, every job, and HandleReloadConfigRequest). A token with models is for these alone; without it is for every model.",
		Example: "  inferd token add camera-1 --scope predict --model mobilenet\n  inferd token add line-7 --scope predict,submit --expires 90d\n  inferd token add prometheus --scope metrics",
		Args:    exactly(1, "the token's name"),
		RunE: func(_ *cobra.Command, args []string) error {
			now := time.Now().UTC().Truncate(time.Second)
			secret := access.NewSecret()
			t := access.Token{Name: args[0], Sum: access.SumOf(secret), Models: models, Created: now}
			for _, word := range scopes {
				s, err := access.ParseScope(word)
				if err != nil {
					return usagef("--scope: %w", err)
				}
				t.Scopes |= s
			}
			var err error
			if t.Expires, err = parseExpires(expires, now); err != nil {
				return usagef("--expires %w", err)
			}
			if err := t.Check(); err != nil {
				return usagef("token %s: %w", args[0], err)
			}
			path, configured, err := e.tokensFile(*file)
			if err != nil {
				return err
			}
			err = access.Change(path, serviceGroup, func(all []access.Token) ([]access.Token, error) {
				if slices.ContainsFunc(all, func(o access.Token) bool { return o.Name == t.Name }) {
					return nil, fmt.Errorf("%s has a token %s already; remove it first, or choose another name", path, t.Name)
				}
				return append(all, t), nil
			})
			if err != nil {
				return err
			}
			m := made{Name: t.Name, Token: secret, Scopes: t.Scopes.Words(), Models: t.Models}
			if !t.Expires.IsZero() {
				m.Expires = &t.Expires
			}
			fmt.Fprintf(e.err, "token %s is in %s as a sum; the token itself is shown here and never again\n", t.Name, path)
			if !configured {
				fmt.Fprintf(e.err, "the configuration does not name the file, so nobody is asked for tokens yet: write access: {tokens_file: %s}, and start inferd again\n", path)
			}
			return e.print(m, func(w io.Writer) { fmt.Fprintln(w, secret) })
		},
	}
	cmd.Flags().StringSliceVar(&scopes, "scope", nil, "what it is for: predict, submit, metrics, admin; several with commas, or the flag again")
	cmd.Flags().StringSliceVar(&models, "model", nil, "a model that it is for; several with commas, or the flag again (default: every one)")
	cmd.Flags().StringVar(&expires, "expires", "", "until when: 90d, 12h, 2027-01-31 (default: until it is removed)")
	must(cmd.RegisterFlagCompletionFunc("scope", cobra.FixedCompletions([]string{"predict", "submit", "metrics", "admin"}, cobra.ShellCompDirectiveNoFileComp)))
	must(cmd.RegisterFlagCompletionFunc("model", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return e.modelNames(cmd.Context()), cobra.ShellCompDirectiveNoFileComp
	}))
	return cmd
}

// parseExpires reads a time from now on, in days too, or a date.
func parseExpires(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, form := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(form, text); err == nil {
			if !at.After(now) {
				return at, fmt.Errorf("%s is over already", text)
			}
			return at.UTC(), nil
		}
	}
	d, err := time.ParseDuration(text)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, derr := strconv.ParseUint(days, 10, 32)
		if d, err = time.Duration(n)*24*time.Hour, derr; n > 36500 {
			err = errors.New("too long")
		}
	}
	if err != nil || d < time.Second {
		return time.Time{}, fmt.Errorf("%.40q: write a time from now on as in 90d or 12h, or a date as in 2027-01-31", text)
	}
	return now.Add(d), nil
}

// listed is a token in a list.
type listed struct {
	Name    string     `json:"name"`
	ID      string     `json:"id"` // the beginning of its sum
	Scopes  []string   `json:"scopes"`
	Models  []string   `json:"models,omitempty"`
	Created *time.Time `json:"created,omitempty"`
	Expires *time.Time `json:"expires,omitempty"`
	Expired bool       `json:"expired"`
}

func tokenListCommand(e *env, file *string) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the tokens and what they are for",
		Args:  exactly(0, "flags only"),
		RunE: func(*cobra.Command, []string) error {
			path, _, err := e.tokensFile(*file)
			if err != nil {
				return err
			}
			tokens, err := access.ReadFile(path)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			out, now := []listed{}, time.Now()
			when := func(t time.Time) *time.Time {
				if t.IsZero() {
					return nil
				}
				return &t
			}
			for i := range tokens {
				t := &tokens[i]
				out = append(out, listed{t.Name, t.ID(), t.Scopes.Words(), t.Models, when(t.Created), when(t.Expires), t.Expired(now)})
			}
			return e.print(out, func(w io.Writer) { tokensTable(w, path, out) })
		},
	}
}

func tokensTable(w io.Writer, path string, tokens []listed) {
	if len(tokens) == 0 {
		fmt.Fprintf(w, "no tokens in %s\n", path)
		return
	}
	day := func(t *time.Time, none string) string {
		if t == nil {
			return none
		}
		return t.Format(time.DateOnly)
	}
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tID\tSCOPES\tMODELS\tCREATED\tEXPIRES")
	for _, k := range tokens {
		models, expires := strings.Join(k.Models, ","), day(k.Expires, "never")
		if models == "" {
			models = "every one"
		}
		if k.Expired {
			expires += " (over)"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", k.Name, k.ID, strings.Join(k.Scopes, ","), models, day(k.Created, "-"), expires)
	}
	_ = t.Flush() // the terminal is gone when this fails
}

func tokenRemoveCommand(e *env, file *string) *cobra.Command {
	return &cobra.Command{
		Use:     "remove NAME...",
		Short:   "Remove tokens; a running inferd lets nobody in with them a second later, and closes their streams",
		Aliases: []string{"rm"},
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("%s takes the names of the tokens; none was given", cmd.Name())
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			path, _, err := e.tokensFile(*file)
			if err != nil {
				return err
			}
			err = access.Change(path, serviceGroup, func(all []access.Token) ([]access.Token, error) {
				for _, name := range args {
					if !slices.ContainsFunc(all, func(t access.Token) bool { return t.Name == name }) {
						return nil, fmt.Errorf("%s has no token %.80q; `inferd token list` has their names; none was removed", path, name)
					}
				}
				return slices.DeleteFunc(all, func(t access.Token) bool { return slices.Contains(args, t.Name) }), nil
			})
			if err != nil {
				return err
			}
			return e.print(map[string][]string{"removed": args}, func(w io.Writer) { fmt.Fprintf(w, "removed %s\n", strings.Join(args, ", ")) })
		},
	}
}
