//! SearchIndex.

use super::{Answer, Context, answer, decode};
use crate::inventory;
use crate::property;
use crate::state::not_found;
use crate::vm::Vm;
use vim::method::*;
use vim::xml::Element;

impl Context {
    pub(super) fn find(&self, name: &str, element: &Element) -> Answer {
        let state = self.host.state();
        let scope = self.scope(&state);
        match name {
            "FindByInventoryPath" => {
                let find: FindByInventoryPath = decode(element)?;
                let mut at = Some(inventory::root_folder());
                for part in find.inventory_path.split('/').filter(|p| !p.is_empty()) {
                    at = at.and_then(|parent| property::child_named(&scope, &parent, part));
                }
                answer::<FindByInventoryPath>(&at)
            }
            "FindChild" => {
                let find: FindChild = decode(element)?;
                if !property::exists(&scope, &find.entity) {
                    return Err(not_found(&find.entity));
                }
                answer::<FindChild>(&property::child_named(&scope, &find.entity, &find.name))
            }
            "FindByUuid" => {
                let find: FindByUuid = decode(element)?;
                let instance = find.instance_uuid.unwrap_or(false);
                let is = |vm: &&Vm| {
                    let uuid = if instance {
                        &vm.config.instance_uuid
                    } else {
                        &vm.config.uuid
                    };
                    find.vm_search && uuid.eq_ignore_ascii_case(&find.uuid)
                };
                answer::<FindByUuid>(&state.vms.values().find(is).map(Vm::reference))
            }
            _ => {
                let find: FindByDatastorePath = decode(element)?;
                let path = self.host.store.parse(&find.path)?;
                let vm = state.vms.values().find(|vm| vm.vmx == path);
                answer::<FindByDatastorePath>(&vm.map(Vm::reference))
            }
        }
    }
}
