//! ViewManager and its views.

use super::{Answer, Context, answer, decode};
use crate::property::{self, View};
use crate::state::{State, not_found};
use vim::Fault;
use vim::method::*;
use vim::types::*;
use vim::xml::Element;

/// Kinds of objects that a container view can be of.
const CONTAINERS: [&str; 5] = [
    "Folder",
    "Datacenter",
    "ComputeResource",
    "ResourcePool",
    "HostSystem",
];

impl Context {
    pub(super) fn view(
        &self,
        name: &str,
        this: &ManagedObjectReference,
        element: &Element,
    ) -> Answer {
        match name {
            "CreateContainerView" => {
                let make: CreateContainerView = decode(element)?;
                if !CONTAINERS.contains(&make.container.kind.as_ref()) {
                    let message = format!("{} is no container", make.container);
                    return Err(Fault::invalid_argument("container", message));
                }
                let view = View::Container {
                    container: make.container,
                    kinds: make.kind,
                    recursive: make.recursive,
                };
                answer::<CreateContainerView>(&self.add_view(view))
            }
            "CreateListView" => {
                let make: CreateListView = decode(element)?;
                answer::<CreateListView>(&self.add_view(View::List(make.obj)))
            }
            "ModifyListView" => {
                let modify: ModifyListView = decode(element)?;
                answer::<ModifyListView>(&self.modify_list(this, modify)?)
            }
            "DestroyView" => {
                if self.session.objects().views.remove(&this.id).is_none() {
                    return Err(not_found(this));
                }
                self.host.change(State::touch_structure);
                answer::<DestroyView>(&())
            }
            _ => Err(self.no_method(name, this)),
        }
    }

    fn add_view(&self, view: View) -> ManagedObjectReference {
        let mut objects = self.session.objects();
        let id = self.session.new_id(&mut objects);
        let reference = ManagedObjectReference::new(view.kind(), id.clone());
        objects.views.insert(id, view);
        reference
    }

    /// Gives the objects that could not be added, since they do not exist.
    fn modify_list(
        &self,
        this: &ManagedObjectReference,
        modify: ModifyListView,
    ) -> Result<Vec<ManagedObjectReference>, Fault> {
        self.host.change(|state| {
            let scope = self.scope(state);
            let (add, unknown): (Vec<_>, Vec<_>) = modify
                .add
                .into_iter()
                .partition(|object| property::exists(&scope, object));
            let mut objects = self.session.objects();
            let Some(View::List(list)) = objects.views.get_mut(&this.id) else {
                return Err(not_found(this));
            };
            list.retain(|object| !modify.remove.contains(object));
            for object in add {
                if !list.contains(&object) {
                    list.push(object);
                }
            }
            drop(objects);
            state.touch_structure();
            Ok(unknown)
        })
    }
}
