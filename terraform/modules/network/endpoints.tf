# Ways to AWS that do not leave its network.

locals {
  partition = split(":", var.artifact_bucket_arn)[1]

  interface_services = toset(var.interface_endpoints ? [
    "autoscaling", "ecr.api", "ecr.dkr", "kms", "logs", "sagemaker.api", "sagemaker.runtime", "ssm", "sts",
  ] : [])
}

# In the workload subnets' route tables only. In the Lambda's it would take the place of NAT for every picture on an S3
# host of the region, and answer 403.
resource "aws_vpc_endpoint" "s3" {
  vpc_id            = aws_vpc.this.id
  service_name      = "com.amazonaws.${var.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = [for key, table in aws_route_table.this : table.id if local.subnets[key].kind == "workload"]

  # No way to carry data off to another bucket of this region, whoever's credentials are used.
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "ArtifactBucket"
        Effect    = "Allow"
        Principal = "*"
        Action    = ["s3:AbortMultipartUpload", "s3:GetObject", "s3:ListBucket", "s3:PutObject"]
        Resource  = [var.artifact_bucket_arn, "${var.artifact_bucket_arn}/*"]
      },
      {
        Sid       = "ImageLayers"
        Effect    = "Allow"
        Principal = "*"
        Action    = "s3:GetObject"
        Resource  = "arn:${local.partition}:s3:::prod-${var.region}-starport-layer-bucket/*" # ECR's
      },
    ]
  })

  tags = { Name = "${var.name}-s3" }
}

resource "aws_security_group" "interface_endpoints" {
  count = var.interface_endpoints ? 1 : 0

  name_prefix = "${var.name}-interface-endpoints-"
  description = "HTTPS from the VPC to the interface endpoints"
  vpc_id      = aws_vpc.this.id

  tags = { Name = "${var.name}-interface-endpoints" }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "interface_endpoints" {
  count = var.interface_endpoints ? 1 : 0

  security_group_id = aws_security_group.interface_endpoints[0].id
  description       = "HTTPS from inside the VPC"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = var.vpc_cidr
}

resource "aws_vpc_endpoint" "interface" {
  for_each = local.interface_services

  vpc_id              = aws_vpc.this.id
  service_name        = "com.amazonaws.${var.region}.${each.key}"
  vpc_endpoint_type   = "Interface"
  private_dns_enabled = true
  security_group_ids  = aws_security_group.interface_endpoints[*].id
  subnet_ids          = [for key, subnet in aws_subnet.this : subnet.id if local.subnets[key].kind == "workload"]

  tags = { Name = "${var.name}-${each.key}" }
}
