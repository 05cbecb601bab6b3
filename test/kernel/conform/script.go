//go:build unix

package conform

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Line is one command of a script.
type Line struct {
	No    int      // line number in the file, from 1
	Text  string   // as written, without the standard input
	Words []string // never empty
	Stdin string
	// Differs names the entry of docs/differences.md that explains another answer on udm; empty means none is forgiven.
	Differs string
}

// Script is a parsed script file.
type Script struct {
	Name  string // file name without folder and extension
	About string // the first comment
	Hash  string // of the whole text
	Needs []string
	Long  bool // the kernel takes long for it
	Lines []Line
}

// ReadDir parses every *.txt file of a folder, in the order of names.
func ReadDir(dir string) ([]Script, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		return nil, err
	}
	var scripts []Script
	for _, p := range paths {
		text, err := os.ReadFile(p)
		if err != nil {
			return nil, err
		}
		s, err := Parse(strings.TrimSuffix(filepath.Base(p), ".txt"), string(text))
		if err != nil {
			return nil, err
		}
		scripts = append(scripts, s)
	}
	return scripts, nil
}

// Parse reads the text of a script.
func Parse(name, text string) (Script, error) {
	s := Script{Name: name, Hash: fmt.Sprintf("%x", sha256.Sum256([]byte(text)))[:16]}
	differs := ""
	for i, raw := range strings.Split(text, "\n") {
		bad := func(why string) error { return fmt.Errorf("%s:%d: %s: %s", name, i+1, why, raw) }
		switch {
		case strings.HasPrefix(raw, "\t"):
			if len(s.Lines) == 0 {
				return s, bad("standard input of no command")
			}
			s.Lines[len(s.Lines)-1].Stdin += raw[1:] + "\n"
			continue
		case strings.HasPrefix(raw, "#"):
			if s.About == "" {
				s.About = strings.TrimSpace(raw[1:])
			}
			continue
		}
		words, ok := split(raw)
		if !ok {
			return s, bad("open quote")
		}
		switch {
		case len(words) == 0:
		case words[0] == "needs":
			s.Needs = append(s.Needs, words[1:]...)
		case words[0] == "long" && len(words) == 1:
			s.Long = true
		case words[0] == "differs" && len(words) == 2:
			differs = words[1]
		case commands[words[0]]:
			s.Lines = append(s.Lines, Line{No: i + 1, Text: strings.TrimSpace(raw), Words: words, Differs: differs})
			differs = ""
		default:
			return s, bad("unknown command")
		}
	}
	if s.About == "" {
		return s, fmt.Errorf("%s: no comment says what the script is about", name)
	}
	return s, nil
}

var commands = map[string]bool{
	"disk": true, "dmsetup": true, "write": true, "read": true, "discard": true, "zero": true, "flush": true, "peek": true,
	"poke": true, "open": true, "close": true, "limits": true, "&": true, "join": true, "slow": true,
	"eventually": true,
}

// split cuts a line into words at blanks outside quotes; ok is false when a quote stays open.
func split(line string) (words []string, ok bool) {
	var word strings.Builder
	inWord, quote := false, rune(0)
	for _, c := range line {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, inWord = c, true
		case quote == 0 && (c == ' ' || c == '\t'):
			if inWord {
				words = append(words, word.String())
				word.Reset()
			}
			inWord = false
		default:
			word.WriteRune(c)
			inWord = true
		}
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, quote == 0
}
