package web

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// tokenFile has the token of a root. It outlives the daemon, so that open pages do.
const tokenFile = "web.token"

// Token returns the token of a root, which is made on first use.
func Token(root string) (string, error) {
	path := filepath.Join(root, tokenFile)
	token, err := ReadToken(root)
	if !errors.Is(err, fs.ErrNotExist) {
		return token, err
	}
	f, err := os.CreateTemp(root, tokenFile+".*") // for its owner only
	if err != nil {
		return "", err
	}
	token = rand.Text() + rand.Text()
	_, err = fmt.Fprintln(f, token)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return token, nil
}

// ReadToken returns the token of a root with a page.
func ReadToken(root string) (string, error) {
	path := filepath.Join(root, tokenFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	if len(token) < 32 {
		return "", fmt.Errorf("%s has no token; move it away and restart the daemon, which makes a new one", path)
	}
	return token, nil
}
