// tune.go: how a model is run, and what was measured to find that.
package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/inference/tuning"
)

func tuneVerb(e *env) *cobra.Command {
	var again bool
	cmd := &cobra.Command{
		Use:   "tune MODEL",
		Short: "Show how TensorFlow is called for a model's live versions, and what was measured to find that",
		Args:  exactly(1, "a model"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.client()
			if err != nil {
				return err
			}
			defer c.Close()
			if again { // it takes as long as a load, and what measuring may take
				if _, err := c.Retune(cmd.Context(), args[0]); err != nil {
					return err
				}
			}
			list, err := c.Tuned(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return e.print(list, func(w io.Writer) {
				for i := range list {
					tunedTable(w, &list[i])
				}
			})
		},
	}
	cmd.Flags().BoolVar(&again, "again", false, "measure again first, beside what serves; what is found best takes over")
	return cmd
}

// tunedTable is one version with everything that was tried.
func tunedTable(w io.Writer, t *control.Tuned) {
	fmt.Fprintf(w, "%s version %d: %s\n", t.Model, t.Version, t.Text)
	if !t.Measured.IsZero() {
		fmt.Fprintf(w, "measured %s in %v on %s, runtime %s\n", t.Measured.Local().Format(time.DateTime), time.Duration(t.TookMicros*1000).Round(time.Millisecond), t.CPU, t.Runtime)
	}
	if t.Reason != "" {
		fmt.Fprintln(w, t.Reason)
	}
	if len(t.Runs) > 0 {
		fmt.Fprintf(w, "runs of signature %s, lately:", t.Signature)
		for _, r := range t.Runs {
			fmt.Fprintf(w, " %s %v,", rowsText(r.Rows), time.Duration(r.Micros)*time.Microsecond)
		}
		fmt.Fprintf(w, " and requests are joined up to %s\n", rowsText(t.Rows))
	}
	if len(t.Tried) == 0 {
		return
	}
	var sizes []int64
	for _, o := range t.Tried {
		for n := range o.Figures.Rates {
			if !slices.Contains(sizes, n) {
				sizes = append(sizes, n)
			}
		}
	}
	slices.Sort(sizes)
	tab := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprint(tab, "TRIED\tVERDICT\tGAIN")
	for _, n := range sizes {
		fmt.Fprintf(tab, "\tROWS/S BY %d", n)
	}
	fmt.Fprintln(tab, "\tALONE\tAGAINST\tWHY")
	for _, o := range t.Tried {
		f := o.Figures
		gain, alone, why := "-", "-", o.Reason
		if f.Pairs > 0 {
			gain = fmt.Sprintf("%.2f", f.Gain)
			alone = fmt.Sprintf("%v, not %v", f.Alone.Round(time.Microsecond), f.BaseAlone.Round(time.Microsecond))
		}
		fmt.Fprintf(tab, "%s\t%s\t%s", o.Plan.Step(o.Against), o.Verdict, gain)
		for _, n := range sizes {
			fmt.Fprintf(tab, "\t%s", rates(f, n))
		}
		fmt.Fprintf(tab, "\t%s\t%s\t%s\n", alone, o.Against.Step(t.Plain), cmp.Or(oneLine(why), "-"))
	}
	_ = tab.Flush() // the terminal is gone when this fails
}

func rowsText(n int64) string {
	if n == 1 {
		return "1 row"
	}
	return fmt.Sprintf("%d rows", n)
}

// rates are a candidate's rows a second and the other's.
func rates(f tuning.Figures, rows int64) string {
	if f.Rates[rows] == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3g, not %.3g", f.Rates[rows], f.Base[rows])
}
