output "lambda_subnet_ids" {
  description = "The Lambda's subnets, one a zone: NAT, no S3 gateway route."
  value       = [for key in ["lambda-0", "lambda-1"] : aws_subnet.this[key].id]

  # A function that starts before its route exists cannot fetch its first picture.
  depends_on = [aws_route_table_association.this]
}

output "vpc_id" {
  description = "The VPC."
  value       = aws_vpc.this.id
}

output "workload_subnet_ids" {
  description = "Subnets of notebook, training, hosting and trainer, one a zone: NAT and the S3 gateway endpoint."
  value       = [for key in ["workload-0", "workload-1"] : aws_subnet.this[key].id]

  depends_on = [aws_route_table_association.this, aws_vpc_endpoint.s3, aws_vpc_endpoint.interface]
}
