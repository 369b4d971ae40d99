// sign.go: keys, and versions signed with them: keygen, sign.
package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/inferd/inferd/appliance"
)

func keygenCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "keygen FILE",
		Short: "Write a new private key for signing versions to a file, and print its public key",
		Long: "Writes a new ed25519 private key to FILE, which must not exist, and prints the public key, which belongs into signature_keys\n" +
			"in the configuration of whoever shall trust it.",
		Args: exactly(1, "one file"),
		RunE: func(_ *cobra.Command, args []string) error {
			key, err := appliance.Keygen(args[0])
			if err != nil {
				return err
			}
			return e.print(map[string]string{"file": args[0], "key": key}, func(w io.Writer) { fmt.Fprintln(w, key) })
		},
	}
}

func signCommand(e *env) *cobra.Command {
	var key string
	cmd := &cobra.Command{
		Use:   "sign DIR --key FILE",
		Short: "Write a version folder's MANIFEST, and the signature over it",
		Long: "Writes MANIFEST, the SHA-256 of every file of the version folder DIR, and MANIFEST.sig, the signature over it. Do it before the folder\n" +
			"lies where it is served: inferd loads nothing that still changes.",
		Args: exactly(1, "one version folder"),
		RunE: func(_ *cobra.Command, args []string) error {
			if key == "" {
				return usageError{errors.New("sign needs --key FILE, a private key; inferd keygen FILE makes one")}
			}
			s, err := appliance.Sign(args[0], key)
			if err != nil {
				return err
			}
			return e.print(s, func(w io.Writer) {
				fmt.Fprintf(w, "%s: %d files signed, the public key is %s\n", s.Dir, s.Files, s.Key)
			})
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "file with the private key")
	return cmd
}
