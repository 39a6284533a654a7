-- What the servers keep: the record, its users, the studies.
create database mlflow;

create database mlflow_users;

create database studies;

