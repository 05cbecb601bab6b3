module udm

go 1.26
