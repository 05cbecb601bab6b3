//go:build unix

package conform

import (
	"fmt"
	"regexp"
	"strings"
)

// dmMajor is the major number of device-mapper devices.
const dmMajor = "254"

// deviceNumber is 7:0 or (7, 0) where no digit or colon continues it, or meta_device:7:0.
var deviceNumber = regexp.MustCompile(`(?m)(^|[ (,]|meta_device:)(\d+)(?::|, )(\d+)($|[ ),])`)

// normalise replaces device numbers of disks and makes blanks at the ends of lines visible.
func (r *runner) normalise(text string) ([]string, error) {
	names := map[string]string{} // number → $NAME, filled when the first number is met
	for _, m := range deviceNumber.FindAllStringSubmatch(text, -1) {
		if m[2] == dmMajor || len(names) > 0 {
			continue
		}
		for disk, path := range r.disks {
			n, err := r.host.Number(path)
			if err != nil {
				return nil, err
			}
			names[n] = "$" + disk
		}
	}
	out := lines(text)
	for i, line := range out {
		for range 2 { // neighbours share the blank between them
			line = replaceNumbers(line, names)
		}
		if strings.HasSuffix(line, " ") || strings.HasSuffix(line, "\t") {
			line += "$"
		}
		out[i] = line
	}
	return out, nil
}

func replaceNumbers(line string, names map[string]string) string {
	return deviceNumber.ReplaceAllStringFunc(line, func(found string) string {
		m := deviceNumber.FindStringSubmatch(found)
		if name, ok := names[m[2]+":"+m[3]]; ok {
			return m[1] + name + m[4]
		}
		return found
	})
}

// lines cuts text into lines; the last one needs no newline.
func lines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

var ioctlFailed = regexp.MustCompile(` ioctl on .* failed: (.*)$`)

// exitLines tells the exit code and the errors of a program.
func exitLines(e Exit) []string {
	var out []string
	if e.Code != 0 {
		out = append(out, fmt.Sprintf("exit %d", e.Code))
	}
	for _, l := range lines(e.Stderr) {
		if m := ioctlFailed.FindStringSubmatch(l); m != nil {
			l = m[1]
		}
		if l != "Command failed." {
			out = append(out, "error "+l)
		}
	}
	return out
}

// maskTimes replaces the columns of @stats_print that hold times: 4, 8 and 10 to 13, and the buckets after them are kept.
func maskTimes(text string) string {
	rows := strings.Split(text, "\n")
	for i, row := range rows {
		f := strings.Fields(row)
		if len(f) < 14 {
			continue
		}
		for _, col := range []int{4, 8, 10, 11, 12, 13} {
			f[col] = "*"
		}
		rows[i] = strings.Join(f, " ")
	}
	return strings.Join(rows, "\n")
}
