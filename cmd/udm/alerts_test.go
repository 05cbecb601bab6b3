package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// Every alert leads to a command that there is, with options that it has.
func TestCommandsOfAlerts(t *testing.T) {
	text, err := os.ReadFile("../../packaging/prometheus/udm.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^ +command: (.*)$`).FindAllStringSubmatch(string(text), -1)
	if len(found) < 15 {
		t.Fatalf("%d alerts have commands", len(found))
	}
	template := regexp.MustCompile(`\{\{[^}]*\}\}`)
	for _, m := range found {
		line := template.ReplaceAllString(m[1], "disk")
		if line == "systemctl restart udm" {
			continue
		}
		words := strings.Fields(strings.ReplaceAll(line, "SIZE", "1G"))
		cmd, args, err := rootCommand().Find(words[1:])
		if err == nil && cmd.Runnable() && !cmd.DisableFlagParsing {
			if err = cmd.ParseFlags(args); err == nil {
				err = cmd.ValidateArgs(cmd.Flags().Args())
			}
		}
		if err != nil || words[0] != "udm" || cmd.Name() == "udm" {
			t.Errorf("%s: %v", m[1], err)
		}
	}
}
