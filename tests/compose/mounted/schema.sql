create table stock (item text); insert into stock values ($$from a file$$);
