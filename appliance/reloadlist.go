// reloadlist.go: HandleReloadConfigRequest: another list of models, bounded in time, as a whole or not at all.
package appliance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	pb "github.com/wamuir/graft/tensorflow/serving/config_go_proto"

	"github.com/inferd/inferd/appliance/api/rpc"
	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/updater"
)

// listPatience is how long models of a new list may take when the caller brings no deadline.
const listPatience = 10 * time.Minute

// reloadList replaces the configured models by those of the list. First the new ones are added, and it waits until each has a version that
// answers (those that its policy names, where it names some); then labels are checked; and only then the rest is changed and what is not
// listed any more is unloaded. When something fails, or ctx ends, the models are again those of before.
func (a *Appliance) reloadList(ctx context.Context, c *pb.ModelServerConfig) error {
	if err := mayReload(ctx, a.current.Load().GRPC.ReloadConfig); err != nil {
		return err
	}
	if _, ok := ctx.Deadline(); !ok {
		bounded, cancel := context.WithTimeout(ctx, listPatience)
		defer cancel()
		ctx = bounded
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-a.draining:
			cancel(inference.Errorf(inference.Unavailable, inference.ReasonDraining, "inferd stops"))
		case <-ctx.Done():
		}
	}()
	if err := a.takeTurn(ctx); err != nil {
		return a.listRefused(inference.Errorf(inference.Unavailable, inference.ReasonDeadline, "Another change of the configuration is under way."))
	}
	defer a.endTurn()
	a.listing.Store(&cancel)
	defer a.listing.Store(nil)
	if a.operators.Load() > 0 {
		cancel(errOperator)
	}
	old := a.current.Load()
	err := a.changeList(ctx, old, c.GetModelConfigList())
	if err == nil {
		return nil
	}
	if a.current.Load() != old {
		if back := a.apply(context.WithoutCancel(ctx), old); back != nil {
			a.log.Error("models cannot be changed back", "err", back)
		}
	}
	return a.listRefused(err)
}

func (a *Appliance) listRefused(err error) error {
	a.log.Error("list of models refused", "err", err, "instead", "the models are as they were before")
	return err
}

func (a *Appliance) changeList(ctx context.Context, old *config.Config, list *pb.ModelConfigList) error {
	next, ignored, err := old.WithModels(list)
	if err != nil {
		return err
	}
	for _, i := range ignored {
		a.log.Warn("setting has no meaning here and changes nothing", "name", i.Name, "reason", i.Reason)
	}
	var added []config.Model
	for _, m := range next.Models {
		if _, listed := old.Model(m.Name); !listed {
			added = append(added, m)
		}
	}
	if len(added) > 0 {
		both := *old
		both.Models = slices.Clone(old.Models)
		for _, m := range added {
			m.VersionLabels = nil // they count when the whole does
			both.Models = append(both.Models, m)
		}
		if err := a.apply(ctx, &both); err != nil {
			return err
		}
		if err := a.awaitModels(ctx, added); err != nil {
			return err
		}
	}
	if err := a.checkLabels(next); err != nil {
		return err
	}
	merged, changes := old.Reload(next)
	if err := a.apply(ctx, merged); err != nil {
		return err
	}
	a.log.Info("models replaced by HandleReloadConfigRequest", "changes", len(changes))
	a.logChanges(changes)
	return nil
}

// awaitModels waits until every model has what its policy wants, or cannot have it.
func (a *Appliance) awaitModels(ctx context.Context, added []config.Model) error {
	s, err := a.updater.Wait(ctx, func(s updater.Status) bool {
		return !slices.ContainsFunc(added, func(c config.Model) bool {
			m, known := s.Model(c.Name)
			return !known || m.Deciding
		})
	})
	var missing []string
	for _, c := range added {
		m, _ := s.Model(c.Name)
		if text := lacks(m, c); text != "" {
			missing = append(missing, text)
		} else if m.Deciding {
			missing = append(missing, fmt.Sprintf("{name: %s} due to error: other versions of it are still loading", c.Name))
		}
	}
	switch cause := context.Cause(ctx); {
	case err == nil && len(missing) == 0:
		return nil
	case err == nil:
		return inference.Errorf(inference.Unknown, inference.ReasonModel, "%d model(s) did not become available: {%s, }", len(missing), strings.Join(missing, ", "))
	case errors.Is(cause, errOperator):
		return &inference.Error{Code: inference.Aborted, Reason: inference.ReasonModel, Err: err, Msg: "Nothing was changed: " + cause.Error()}
	case inference.AsError(cause).Code == inference.Unavailable:
		return cause
	default:
		e := *inference.AsError(err)
		e.Msg = fmt.Sprintf("%d model(s) did not become available in time: {%s, }; nothing was changed, allow more time", len(missing), strings.Join(missing, ", "))
		return &e
	}
}

// lacks says in TensorFlow Serving's form what of the model is not available, "" when what was asked for is.
func lacks(m updater.ModelStatus, c config.Model) string {
	wanted := c.VersionPolicy.Specific
	for _, number := range wanted {
		if !slices.Contains(m.Live, number) {
			why := m.Problem
			if v, ok := m.Version(number); ok && v.Reason != "" {
				why = v.Reason
			}
			return fmt.Sprintf("{name: %s version: %d} due to error: %s", c.Name, number, orElse(why, "it has not been loaded yet"))
		}
	}
	if len(wanted) > 0 || len(m.Live) > 0 {
		return ""
	}
	for _, v := range m.Versions {
		return fmt.Sprintf("{name: %s version: %d} due to error: %s", c.Name, v.Number, orElse(v.Reason, "it has not been loaded yet"))
	}
	return fmt.Sprintf("{name: %s} due to error: %s", c.Name, orElse(m.Problem, "its base path has not been looked at yet"))
}

func orElse(text, other string) string {
	if text == "" {
		return other
	}
	return text
}

// checkLabels refuses labels of versions that are not available, as TensorFlow Serving does.
func (a *Appliance) checkLabels(next *config.Config) error {
	if next.GRPC.ReloadAnyLabel {
		return nil
	}
	s := a.updater.Status()
	for _, c := range next.Models {
		m, _ := s.Model(c.Name)
		for _, number := range sortedVersions(c.VersionLabels) {
			if !slices.Contains(m.Live, number) {
				return inference.Errorf(inference.FailedPrecondition, inference.ReasonModel,
					"Request to assign label to version %d of model %s, which is not currently available for inference", number, c.Name)
			}
		}
	}
	return nil
}

func sortedVersions(labels map[string]int64) (numbers []int64) {
	for _, n := range labels {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	return numbers
}

// mayReload refuses callers that grpc.reload_config does not name.
func mayReload(ctx context.Context, who config.Callers) error {
	switch {
	case who == config.AnyCallers || who == config.LocalCallers && rpc.Local(ctx):
		return nil
	case who == config.LocalCallers:
		return inference.Errorf(inference.PermissionDenied, inference.ReasonInput,
			"HandleReloadConfigRequest is answered for callers on the same machine only; set grpc.reload_config to any to allow every caller.")
	}
	return inference.Errorf(inference.Unimplemented, inference.ReasonInput,
		"HandleReloadConfigRequest is switched off here (grpc.reload_config: off): this server takes its models from its own configuration and from the models directory.")
}
