package main

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	cryptotls "crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	istio "istio.io/api/security/v1alpha1"
)

const audience = "istio-ca"

// istioCA is a CA as istiod is one: istio.v1.auth.IstioCertificateService of istio.io/api over TLS alone, which knows its callers
// by their certificate, or else by a service account's token, and signs for whom it knows whatever the request asks for. The
// chain is the leaf, an intermediate CA, and last the root.
//
// It writes DIR/ca.pem, and for each NAME=SPIFFE-ID the token DIR/NAME.token and, for peers that take files, DIR/NAME.pem with
// DIR/NAME.key. Lines of stdin: "stop" closes the CA and all its connections, "start" opens it on the same address.
func istioCA(args []string) error {
	flags := flag.NewFlagSet("istio-ca", flag.ExitOnError)
	dir := flags.String("dir", ".", "where the files go")
	life := flags.Duration("life", time.Hour, "how long certificates live")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ca, err := newSigner(*life)
	if err != nil {
		return err
	}
	if err := write(filepath.Join(*dir, "ca.pem"), "CERTIFICATE", ca.root.Raw); err != nil {
		return err
	}
	for _, each := range flags.Args() {
		name, id, ok := cut(each)
		if !ok {
			return fmt.Errorf("%q is not NAME=SPIFFE-ID", each)
		}
		if err := ca.introduce(*dir, name, id); err != nil {
			return err
		}
	}
	address, err := ca.start("127.0.0.1:0")
	if err != nil {
		return err
	}
	say(map[string]string{"listening": address})
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		switch lines.Text() {
		case "stop":
			ca.running.Stop()
		case "start":
			if _, err := ca.start(address); err != nil {
				return err
			}
		default:
			return fmt.Errorf("stdin: %q", lines.Text())
		}
		say(map[string]string{"did": lines.Text()})
	}
	return lines.Err()
}

// signer is the CA. It signs with an intermediate of its root.
type signer struct {
	istio.UnimplementedIstioCertificateServiceServer
	root, middle *x509.Certificate
	key          crypto.Signer
	secret       []byte
	life         time.Duration
	accounts     map[string]*url.URL // by the subject of the token
	running      *grpc.Server
}

func newSigner(life time.Duration) (*signer, error) {
	root, rootKey, err := authority("interop root", nil, nil)
	if err != nil {
		return nil, err
	}
	middle, key, err := authority("interop intermediate", root, rootKey)
	if err != nil {
		return nil, err
	}
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return nil, err
	}
	return &signer{root: root, middle: middle, key: key, secret: secret, life: life, accounts: map[string]*url.URL{}}, nil
}

// authority makes a CA; without a parent it signs itself.
func authority(name string, parent *x509.Certificate, parentKey crypto.Signer) (*x509.Certificate, crypto.Signer, error) {
	made := template(name)
	made.IsCA, made.KeyUsage, made.ExtKeyUsage = true, x509.KeyUsageCertSign, nil
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if parent == nil {
		parent, parentKey = made, key
	}
	der, err := x509.CreateCertificate(rand.Reader, made, parent, key.Public(), parentKey)
	if err != nil {
		return nil, nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	return certificate, key, err
}

// introduce makes an account known, and writes its token and its files.
func (s *signer) introduce(dir, name string, id *url.URL) error {
	// /ns/NAMESPACE/sa/ACCOUNT, as istiod names them.
	parts := strings.Split(id.Path, "/")
	if len(parts) != 5 {
		return fmt.Errorf("%s is no service account's", id)
	}
	subject := fmt.Sprintf("system:serviceaccount:%s:%s", parts[2], parts[4])
	s.accounts[subject] = id
	token, err := s.token(subject)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, name+".token"), []byte(token), 0o600); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	chain, err := s.sign(key.Public(), id, time.Hour)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, name+".pem"), []byte(strings.Join(chain[:2], "")), 0o600); err != nil {
		return err
	}
	return write(filepath.Join(dir, name+".key"), "PRIVATE KEY", secret)
}

// sign gives the leaf, the intermediate and the root.
func (s *signer) sign(key crypto.PublicKey, id *url.URL, life time.Duration) ([]string, error) {
	leaf := template("")
	leaf.KeyUsage = x509.KeyUsageDigitalSignature
	leaf.URIs = []*url.URL{id}
	leaf.NotAfter = time.Now().Add(life)
	der, err := x509.CreateCertificate(rand.Reader, leaf, s.middle, key, s.key)
	if err != nil {
		return nil, err
	}
	var chain []string
	for _, one := range [][]byte{der, s.middle.Raw, s.root.Raw} {
		chain = append(chain, string(text("CERTIFICATE", one)))
	}
	return chain, nil
}

func (s *signer) start(address string) (string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	serving := template("")
	serving.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	der, err := x509.CreateCertificate(rand.Reader, serving, s.middle, key.Public(), s.key)
	if err != nil {
		return "", err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return "", err
	}
	trusted := x509.NewCertPool()
	trusted.AddCert(s.root)
	s.running = grpc.NewServer(grpc.Creds(credentials.NewTLS(&cryptotls.Config{
		Certificates: []cryptotls.Certificate{{Certificate: [][]byte{der, s.middle.Raw}, PrivateKey: key}},
		ClientAuth:   cryptotls.VerifyClientCertIfGiven,
		ClientCAs:    trusted,
	})))
	istio.RegisterIstioCertificateServiceServer(s.running, s)
	go func(running *grpc.Server) {
		if err := running.Serve(listener); err != nil {
			fmt.Fprintln(os.Stderr, "peer:", err)
			os.Exit(1)
		}
	}(s.running)
	return listener.Addr().String(), nil
}

// CreateCertificate signs for the caller, whatever name the request has.
func (s *signer) CreateCertificate(ctx context.Context, request *istio.IstioCertificateRequest) (*istio.IstioCertificateResponse, error) {
	id, by, err := s.caller(ctx)
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	block, rest := pem.Decode([]byte(request.GetCsr()))
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(rest) > 0 {
		return nil, status.Error(codes.InvalidArgument, "the CSR is not one PEM block")
	}
	asked, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if err := asked.CheckSignature(); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	key, ok := asked.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, status.Error(codes.InvalidArgument, "the key is not of P-256")
	}
	chain, err := s.sign(key, id, s.life)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	say(map[string]any{"issued": id.String(), "by": by, "at": float64(time.Now().UnixMilli()) / 1000, "asked": request.GetValidityDuration()})
	return &istio.IstioCertificateResponse{CertChain: chain}, nil
}

// caller is known by its certificate, which TLS has verified, or else by its token.
func (s *signer) caller(ctx context.Context) (*url.URL, string, error) {
	from, ok := peer.FromContext(ctx)
	if !ok {
		return nil, "", errors.New("nobody calls")
	}
	if info, ok := from.AuthInfo.(credentials.TLSInfo); ok && len(info.State.VerifiedChains) > 0 {
		leaf := info.State.VerifiedChains[0][0]
		if len(leaf.URIs) != 1 {
			return nil, "", errors.New("the certificate has not one URI")
		}
		return leaf.URIs[0], "certificate", nil
	}
	asked, _ := metadata.FromIncomingContext(ctx)
	for _, header := range asked.Get("authorization") {
		if token, ok := strings.CutPrefix(header, "Bearer "); ok {
			id, err := s.account(token)
			return id, "token", err
		}
	}
	return nil, "", errors.New("neither a certificate nor a token")
}

// claims is what istiod reads of a token; the audience must be a list.
type claims struct {
	Subject   string   `json:"sub"`
	Audience  []string `json:"aud"`
	ExpiresAt int64    `json:"exp"`
}

func (s *signer) token(subject string) (string, error) {
	body, err := json.Marshal(claims{subject, []string{audience}, time.Now().Add(time.Hour).Unix()})
	if err != nil {
		return "", err
	}
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode(body)
	return signed + "." + encode(s.mac(signed)), nil
}

func (s *signer) mac(text string) []byte {
	mac := hmac.New(sha256.New, s.secret)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

func (s *signer) account(token string) (*url.URL, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errors.New("the token is no JWT")
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || !hmac.Equal(signature, s.mac(parts[0]+"."+parts[1])) {
		return nil, errors.New("the token is not signed by us")
	}
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, err
	}
	var told claims
	if err := json.Unmarshal(body, &told); err != nil {
		return nil, err
	}
	id := s.accounts[told.Subject]
	if id == nil || !slices.Contains(told.Audience, audience) || told.ExpiresAt <= time.Now().Unix() {
		return nil, fmt.Errorf("the token of %q is of nobody, for another, or expired", told.Subject)
	}
	return id, nil
}
