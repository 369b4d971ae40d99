// secure.go: how the verbs show who they are, and whom they trust: --token-file, INFERD_TOKEN, --tls and --ca.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/inferd/inferd/appliance/access"
)

// tokenVariable has a token for the verbs. There is no flag with one: every user of a machine sees its command lines.
const tokenVariable = "INFERD_TOKEN"

// secureFlags are those of all verbs that ask an inferd over the network.
type secureFlags struct {
	tokenFile, ca string
	tls           bool
}

func (f *secureFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.tokenFile, "token-file", "", "file with the token for an inferd that asks for one (default: the variable "+tokenVariable+"); its control socket needs none")
	flags.StringVar(&f.ca, "ca", "", "TLS: PEM file of the authorities to trust (default: the system's)")
	flags.BoolVar(&f.tls, "tls", false, "speak TLS to a host:port; an https:// address does without this")
}

const maxTokenFile = 8 << 10

// token is the token to show, "" when there is none. No error has a part of it.
func (f *secureFlags) token() (string, error) {
	where, text := "the variable "+tokenVariable, os.Getenv(tokenVariable)
	if f.tokenFile != "" {
		file, err := os.Open(f.tokenFile)
		if err != nil {
			return "", fmt.Errorf("--token-file: %w", err)
		}
		defer func() { _ = file.Close() }() // only read
		data, err := io.ReadAll(io.LimitReader(file, maxTokenFile+1))
		if err != nil {
			return "", fmt.Errorf("--token-file: %w", err)
		}
		if where, text = f.tokenFile, string(data); strings.TrimSpace(text) == "" {
			return "", fmt.Errorf("--token-file: %s is empty", f.tokenFile)
		}
	}
	text = strings.TrimSpace(text)
	if text == "" {
		return "", nil
	}
	if secret, ok := access.ParseBearer("Bearer " + text); ok && secret == text {
		return text, nil
	}
	return "", fmt.Errorf("%s holds no token, which is one word of letters, digits, - and _ as `inferd token add` prints it", where)
}

// authorization is the value of the header, "" without a token.
func (f *secureFlags) authorization() (string, error) {
	t, err := f.token()
	if t == "" {
		return "", err
	}
	return "Bearer " + t, nil
}

// trust is the client's side of TLS.
func (f *secureFlags) trust() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.ca == "" {
		return c, nil
	}
	pem, err := os.ReadFile(f.ca)
	if err != nil {
		return nil, fmt.Errorf("--ca: %w", err)
	}
	if c.RootCAs = x509.NewCertPool(); !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--ca: %s has no certificate in PEM", f.ca)
	}
	return c, nil
}

// dialOptions are those of a gRPC connection. secure: with TLS whatever --tls says.
func (f *secureFlags) dialOptions(secure bool) ([]grpc.DialOption, error) {
	token, err := f.authorization()
	if err != nil {
		return nil, err
	}
	creds := insecure.NewCredentials()
	if secure || f.tls || f.ca != "" {
		trust, err := f.trust()
		if err != nil {
			return nil, err
		}
		creds = credentials.NewTLS(trust)
	}
	options := []grpc.DialOption{grpc.WithTransportCredentials(creds)}
	if token != "" {
		options = append(options, grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return invoke(metadata.AppendToOutgoingContext(ctx, "authorization", token), method, req, reply, cc, opts...)
		}))
	}
	return options, nil
}

// scheme is the address with https:// in front where --tls or --ca asks for it and it says nothing itself.
func (f *secureFlags) scheme(address string) string {
	if (f.tls || f.ca != "") && !strings.Contains(address, "://") {
		return "https://" + address
	}
	return address
}
